//! The routes of triggers. A secret is in the answer that makes it, and in no other.

use reqwest::Method;
use wire::{CreateTrigger, Trigger, TriggerId, TriggerPage, TriggerRun, TriggerRuns, TriggerWithSecret, UpdateTrigger};

use crate::{Client, ClientError, Retry};

impl Client {
    /// `POST /v1/triggers`. Never repeated: a second try would meet the trigger that the first one made.
    pub async fn create_trigger(&self, request: &CreateTrigger) -> Result<TriggerWithSecret, ClientError> {
        let mut call = self.call(Method::POST, &["v1", "triggers"]).with_body(request)?;
        call.retry = Retry::NEVER;
        self.fetch(&call, "the trigger").await
    }

    /// `GET /v1/triggers`: a page of triggers, by name.
    pub async fn triggers(&self, cursor: Option<&str>) -> Result<TriggerPage, ClientError> {
        let mut call = self.call(Method::GET, &["v1", "triggers"]);
        if let Some(cursor) = cursor {
            call.url.query_pairs_mut().append_pair("cursor", cursor);
        }
        self.fetch(&call, "the triggers").await
    }

    /// `GET /v1/triggers/{id}`: the trigger.
    pub async fn trigger(&self, id: TriggerId) -> Result<Trigger, ClientError> {
        self.fetch(&self.call(Method::GET, &["v1", "triggers", &id.to_string()]), "the trigger").await
    }

    /// `GET /v1/triggers/{id}/runs`: its last firings, newest first.
    pub async fn trigger_runs(&self, id: TriggerId) -> Result<TriggerRuns, ClientError> {
        self.fetch(&self.call(Method::GET, &["v1", "triggers", &id.to_string(), "runs"]), "its runs").await
    }

    /// `PATCH /v1/triggers/{id}`: changes what is given of it.
    pub async fn update_trigger(&self, id: TriggerId, change: &UpdateTrigger) -> Result<Trigger, ClientError> {
        let call = self.call(Method::PATCH, &["v1", "triggers", &id.to_string()]).with_body(change)?;
        self.fetch(&call, "the trigger").await
    }

    /// `POST /v1/triggers/{id}/fire`. Never repeated: each call is a firing.
    pub async fn fire_trigger(&self, id: TriggerId) -> Result<TriggerRun, ClientError> {
        let mut call = self.call(Method::POST, &["v1", "triggers", &id.to_string(), "fire"]);
        call.retry = Retry::NEVER;
        self.fetch(&call, "the run").await
    }

    /// `DELETE /v1/triggers/{id}`: deletes it, and gives what it was. Never repeated: a second try would not find it.
    pub async fn delete_trigger(&self, id: TriggerId) -> Result<Trigger, ClientError> {
        let mut call = self.call(Method::DELETE, &["v1", "triggers", &id.to_string()]);
        call.retry = Retry::NEVER;
        self.fetch(&call, "the trigger").await
    }
}
