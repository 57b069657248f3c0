//! The routes of fleets.

use std::time::Duration;

use reqwest::Method;
use uuid::Uuid;
use wire::{CreateFleet, Fleet, FleetId, FleetMemberPage, FleetPage, FleetResultPage, MemberPhase};

use crate::{Client, ClientError};

/// What a cancellation may take: the server waits for the members to end.
const CANCEL_PATIENCE: Duration = Duration::from_secs(90);

/// Which members of a fleet to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListMembers {
    /// `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// How many at most; the server's default when absent.
    pub limit: Option<u32>,
    /// Only those in this phase.
    pub phase: Option<MemberPhase>,
}

impl Client {
    /// `POST /v1/fleets`, with an idempotency key made for this call.
    pub async fn create_fleet(&self, request: &CreateFleet) -> Result<Fleet, ClientError> {
        self.create_fleet_with_key(request, &Uuid::new_v4().to_string()).await
    }

    /// `POST /v1/fleets` with the caller's own idempotency key: the same key gives the same fleet for 24 hours.
    pub async fn create_fleet_with_key(&self, request: &CreateFleet, key: &str) -> Result<Fleet, ClientError> {
        let mut call = self.call(Method::POST, &["v1", "fleets"]).with_body(request)?;
        call.idempotency_key = Some(key.to_owned());
        self.fetch(&call, "the fleet").await
    }

    /// `GET /v1/fleets`: a page of fleets, newest first.
    pub async fn fleets(&self, cursor: Option<&str>) -> Result<FleetPage, ClientError> {
        let mut call = self.call(Method::GET, &["v1", "fleets"]);
        if let Some(cursor) = cursor {
            call.url.query_pairs_mut().append_pair("cursor", cursor);
        }
        self.fetch(&call, "the fleets").await
    }

    /// `GET /v1/fleets/{id}`: the fleet.
    pub async fn fleet(&self, id: FleetId) -> Result<Fleet, ClientError> {
        self.fetch(&self.call(Method::GET, &["v1", "fleets", &id.to_string()]), "the fleet").await
    }

    /// `DELETE /v1/fleets/{id}`: ends it if it has not ended, and gives it as it is then. Idempotent.
    pub async fn cancel_fleet(&self, id: FleetId) -> Result<Fleet, ClientError> {
        let mut call = self.call(Method::DELETE, &["v1", "fleets", &id.to_string()]);
        call.timeout = CANCEL_PATIENCE;
        self.fetch(&call, "the fleet").await
    }

    /// `GET /v1/fleets/{id}/members`: a page of its members.
    pub async fn fleet_members(&self, id: FleetId, which: &ListMembers) -> Result<FleetMemberPage, ClientError> {
        self.of_members(id, "members", which).await
    }

    /// `GET /v1/fleets/{id}/results`: a page of what they gave back.
    pub async fn fleet_results(&self, id: FleetId, which: &ListMembers) -> Result<FleetResultPage, ClientError> {
        self.of_members(id, "results", which).await
    }

    async fn of_members<T: serde::de::DeserializeOwned>(
        &self,
        id: FleetId,
        list: &'static str,
        which: &ListMembers,
    ) -> Result<T, ClientError> {
        let mut call = self.call(Method::GET, &["v1", "fleets", &id.to_string(), list]);
        let limit = which.limit.map(|limit| limit.to_string());
        let phase = which.phase.map(|phase| phase.as_str().to_owned());
        for (name, value) in [("cursor", &which.cursor), ("limit", &limit), ("phase", &phase)] {
            if let Some(value) = value {
                call.url.query_pairs_mut().append_pair(name, value);
            }
        }
        self.fetch(&call, list).await
    }
}
