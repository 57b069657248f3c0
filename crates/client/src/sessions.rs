//! The routes, one method each.

use std::{path::PathBuf, time::Duration};

use reqwest::{Method, StatusCode};
use tokio::time::Instant;
use uuid::Uuid;
use wire::{
    AuditPage, BackendPage, CreateSession, ErrorCode, Health, Phase, Readiness, Session, SessionId, SessionPage,
    SessionResult,
};

use crate::{Client, ClientError, Retry};

/// The longest single wait of a long poll; longer ones are made of several.
pub(crate) const POLL: Duration = Duration::from_secs(25);
/// What a long poll's answer may take beyond the wait.
pub(crate) const POLL_SLACK: Duration = Duration::from_secs(30);
/// What a deletion may take: the server waits for the sandbox to be gone.
const DELETE_PATIENCE: Duration = Duration::from_secs(90);

/// What a creation with files beside it may take.
const UPLOAD_PATIENCE: Duration = Duration::from_hours(1);

/// A file of this machine that is to be in the working directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalFile {
    /// Where it is.
    pub local: PathBuf,
    /// Where it is to be, below `/workspace`.
    pub path: String,
    /// Whether it may be executed there.
    pub executable: bool,
}

/// Which sessions to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListSessions {
    /// `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// How many at most; the server's default when absent.
    pub limit: Option<u32>,
    /// Only those in this phase.
    pub phase: Option<Phase>,
    /// Only those that have all of these labels.
    pub labels: Vec<(String, String)>,
}

impl Client {
    /// `GET /healthz`: the server lives.
    pub async fn health(&self) -> Result<Health, ClientError> {
        let mut call = self.call(Method::GET, &["healthz"]);
        call.retry = Retry::NEVER;
        self.fetch(&call, "the health").await
    }

    /// `GET /readyz`: whether sessions can be created now. A server that is not ready says why; that is no error.
    pub async fn readiness(&self) -> Result<Readiness, ClientError> {
        let mut call = self.call(Method::GET, &["readyz"]);
        call.retry = Retry::NEVER;
        let answer = self.answer(&call).await?;
        if answer.status.is_success() || answer.status == StatusCode::SERVICE_UNAVAILABLE {
            return answer.read("the readiness").map_err(|_| answer.refusal());
        }
        Err(answer.refusal())
    }

    /// `GET /openapi.json`: the contract that the server offers.
    pub async fn openapi(&self) -> Result<serde_json::Value, ClientError> {
        self.fetch(&self.call(Method::GET, &["openapi.json"]), "the OpenAPI document").await
    }

    /// `GET /v1/backends`: the backends, and what each enforces.
    pub async fn backends(&self) -> Result<BackendPage, ClientError> {
        self.fetch(&self.call(Method::GET, &["v1", "backends"]), "the backends").await
    }

    /// `POST /v1/sessions`, with an idempotency key made for this call.
    pub async fn create(&self, request: &CreateSession) -> Result<Session, ClientError> {
        self.create_with_key(request, &Uuid::new_v4().to_string()).await
    }

    /// `POST /v1/sessions` with the caller's own idempotency key: the same key gives the same session for 24 hours.
    pub async fn create_with_key(&self, request: &CreateSession, key: &str) -> Result<Session, ClientError> {
        let mut call = self.call(Method::POST, &["v1", "sessions"]).with_body(request)?;
        call.idempotency_key = Some(key.to_owned());
        self.fetch(&call, "the session").await
    }

    /// `POST /v1/sessions` with files of this machine beside the request, of any size within its `limits.diskBytes`.
    pub async fn create_with_files(
        &self,
        request: &CreateSession,
        files: Vec<LocalFile>,
    ) -> Result<Session, ClientError> {
        let mut call = self.call(Method::POST, &["v1", "sessions"]).with_body(request)?;
        call.idempotency_key = Some(Uuid::new_v4().to_string());
        (call.files, call.timeout) = (files, UPLOAD_PATIENCE);
        self.fetch(&call, "the session").await
    }

    /// `GET /v1/sessions`: a page of sessions, newest first.
    pub async fn sessions(&self, which: &ListSessions) -> Result<SessionPage, ClientError> {
        let mut call = self.call(Method::GET, &["v1", "sessions"]);
        let mut query = call.url.query_pairs_mut();
        if let Some(cursor) = &which.cursor {
            query.append_pair("cursor", cursor);
        }
        if let Some(limit) = which.limit {
            query.append_pair("limit", &limit.to_string());
        }
        if let Some(phase) = which.phase {
            query.append_pair("phase", phase.as_str());
        }
        for (key, value) in &which.labels {
            query.append_pair("label", &format!("{key}:{value}"));
        }
        drop(query);
        self.fetch(&call, "the sessions").await
    }

    /// `GET /v1/sessions/{id}`: the session.
    pub async fn session(&self, id: SessionId) -> Result<Session, ClientError> {
        self.fetch(&self.call(Method::GET, &["v1", "sessions", &id.to_string()]), "the session").await
    }

    /// `DELETE /v1/sessions/{id}`: ends it if it has not ended, and gives it as it is then. Idempotent.
    pub async fn delete(&self, id: SessionId) -> Result<Session, ClientError> {
        let mut call = self.call(Method::DELETE, &["v1", "sessions", &id.to_string()]);
        call.timeout = DELETE_PATIENCE;
        self.fetch(&call, "the session").await
    }

    /// `GET /v1/sessions/{id}/result`, waiting for it at most `wait`; after that the server's `not_finished`.
    pub async fn result(&self, id: SessionId, wait: Duration) -> Result<SessionResult, ClientError> {
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let poll = left.min(POLL);
            let mut call = self.call(Method::GET, &["v1", "sessions", &id.to_string(), "result"]);
            call.timeout = poll + POLL_SLACK;
            call.url.query_pairs_mut().append_pair("waitMs", &poll.as_millis().to_string());
            match self.fetch(&call, "the result").await {
                Err(ClientError::Problem(problem)) if problem.code == ErrorCode::NotFinished && left > poll => {
                    // A server that answers at once instead of waiting is not to be flooded with questions.
                    tokio::time::sleep(self.retry.first_pause).await;
                }
                answer => return answer,
            }
        }
    }

    /// `GET /v1/sessions/{id}/audit`: the session's audit events, a page at a time.
    pub async fn audit(&self, id: SessionId, cursor: Option<&str>) -> Result<AuditPage, ClientError> {
        let mut call = self.call(Method::GET, &["v1", "sessions", &id.to_string(), "audit"]);
        if let Some(cursor) = cursor {
            call.url.query_pairs_mut().append_pair("cursor", cursor);
        }
        self.fetch(&call, "the audit events").await
    }
}
