//! Reading: what this process holds first, the store behind it.

use std::{sync::Arc, time::Duration};

use futures::stream;
use model::access::Caller;
use store::{AuditFilter, SessionFilter};
use wire::{
    AuditPage, BackendPage, BackendView, Chunk, End, Gap, HealthStatus, PhaseChange, Readiness, ReadyBackend, Session,
    SessionId, SessionPage, SessionResult, StreamFrame,
};

use crate::{
    CancelError, Engine, ListError, ReadError, ResultError,
    hub::{Frame, FrameStream, MAX_SEQ},
    live::Live,
};

/// How long a deletion waits for the sandbox to be gone before it answers with the session as it is.
const CANCEL_PATIENCE: Duration = Duration::from_secs(10);
/// Audit events that one session can have in a page, and in a stream that is put together from the store.
const AUDIT_PAGE: u32 = 1000;

impl Engine {
    /// The session.
    pub async fn session(&self, caller: &Caller, id: SessionId) -> Result<Session, ReadError> {
        if let Some(live) = self.live(caller, id) {
            return Ok(Session::clone(&live.progress.borrow().session));
        }
        self.inner.store.tenant(caller.org).session(id).await?.ok_or(ReadError::NotFound)
    }

    /// Sessions, newest first.
    pub async fn sessions(&self, caller: &Caller, filter: SessionFilter) -> Result<SessionPage, ListError> {
        Ok(self.inner.store.tenant(caller.org).sessions(filter).await?)
    }

    /// Ends the session if it has not ended, waits a while until nothing of it is left, and gives it as it is then.
    pub async fn cancel(&self, caller: &Caller, id: SessionId) -> Result<Session, CancelError> {
        let Some(live) = self.live(caller, id) else { return Ok(self.session(caller, id).await?) };
        live.cancel(caller.subject.to_string());
        let mut progress = live.progress.subscribe();
        let gone = progress.wait_for(|progress| progress.session.torn_down_at.is_some());
        // A slow teardown is no failure: the answer then shows a session that is still being reclaimed.
        let _ = tokio::time::timeout(CANCEL_PATIENCE, gone).await;
        Ok(Session::clone(&live.progress.borrow().session))
    }

    /// The result, waiting for it at most `wait`.
    pub async fn result(&self, caller: &Caller, id: SessionId, wait: Duration) -> Result<SessionResult, ResultError> {
        if let Some(live) = self.live(caller, id) {
            let mut progress = live.progress.subscribe();
            let done = tokio::time::timeout(wait, progress.wait_for(|progress| progress.result.is_some())).await;
            return match done {
                Ok(Ok(progress)) => progress.result.as_deref().cloned().ok_or(ResultError::NotFinished),
                Ok(Err(_)) | Err(_) => Err(ResultError::NotFinished),
            };
        }
        let tenant = self.inner.store.tenant(caller.org);
        if tenant.session(id).await?.is_none() {
            return Err(ResultError::NotFound);
        }
        tenant.result(id).await?.ok_or(ResultError::NotFinished)
    }

    /// The session's frames behind number `after`, and those to come.
    pub async fn stream(&self, caller: &Caller, id: SessionId, after: u64) -> Result<FrameStream, ReadError> {
        if after >= MAX_SEQ {
            self.session(caller, id).await?;
            return Ok(Box::pin(stream::empty()));
        }
        match self.live(caller, id) {
            Some(live) => Ok(live.hub.subscribe(after)),
            None => self.stored_stream(caller, id, after).await,
        }
    }

    /// The session's audit events behind position `after_seq` of the org's chain.
    pub async fn audit(
        &self,
        caller: &Caller,
        id: SessionId,
        after_seq: u64,
        limit: u32,
    ) -> Result<AuditPage, ReadError> {
        self.session(caller, id).await?;
        let limit = limit.clamp(1, AUDIT_PAGE);
        let filter = AuditFilter { session: Some(id), after_seq, limit: limit + 1 };
        let mut items = self.inner.store.tenant(caller.org).audit(filter).await?;
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next_cursor = items.last().filter(|_| more).map(|event| event.seq.to_string());
        Ok(AuditPage { items, next_cursor })
    }

    /// The backends, the default one first.
    pub fn backends(&self) -> BackendPage {
        let view = |(index, backend): (usize, &Arc<dyn backend::SessionBackend>)| {
            let capabilities = backend.capabilities();
            BackendView {
                name: capabilities.name.to_owned(),
                isolation: capabilities.isolation,
                executes: capabilities.executes,
                default: index == 0,
                languages: capabilities.languages.clone(),
                exec_modes: capabilities.exec_modes.clone(),
                enforcement: capabilities.enforcement.clone(),
                images: capabilities.images.clone(),
            }
        };
        BackendPage { items: self.inner.backends.iter().enumerate().map(view).collect() }
    }

    /// Whether sessions can be created now.
    pub async fn readiness(&self) -> Readiness {
        let mut backends = Vec::new();
        for backend in &self.inner.backends {
            let capabilities = backend.capabilities();
            backends.push(ReadyBackend {
                name: capabilities.name.to_owned(),
                isolation: capabilities.isolation,
                reachable: self.inner.list(backend.as_ref()).await.is_ok(),
            });
        }
        let reason = if self.is_draining() {
            Some("the server is shutting down")
        } else if self.inner.store.system().ping().await.is_err() {
            Some("the database does not answer")
        } else if !backends.iter().any(|backend| backend.reachable) {
            Some("no backend answers")
        } else {
            None
        };
        let status = if reason.is_some() { HealthStatus::Unavailable } else { HealthStatus::Ok };
        Readiness { status, reason: reason.map(ToOwned::to_owned), backends }
    }

    fn live(&self, caller: &Caller, id: SessionId) -> Option<Arc<Live>> {
        self.inner.registry.get(caller.org, id)
    }

    /// The stream of a session that this process does not hold: its audit events and what its result repeats of the
    /// output. A reader that comes back from an earlier stream gets only the end, since its numbers mean nothing here.
    /// The end has the largest number there is: a reader that comes back from it gets nothing, and stays away.
    async fn stored_stream(&self, caller: &Caller, id: SessionId, after: u64) -> Result<FrameStream, ReadError> {
        let tenant = self.inner.store.tenant(caller.org);
        let session = tenant.session(id).await?.ok_or(ReadError::NotFound)?;
        let result = tenant.result(id).await?;
        let mut frames = Vec::new();
        if after == 0 {
            let filter = AuditFilter { session: Some(id), after_seq: 0, limit: AUDIT_PAGE };
            for event in tenant.audit(filter).await? {
                frames.push(StreamFrame::Audit(Box::new(event)));
            }
            if let Some(result) = &result {
                frames.extend(tail(&result.stdout_tail, result.stdout_tail_offset, StreamFrame::Stdout));
                frames.extend(tail(&result.stderr_tail, result.stderr_tail_offset, StreamFrame::Stderr));
            }
        }
        frames.push(StreamFrame::Phase(PhaseChange {
            phase: session.phase,
            ts: session.torn_down_at.or(session.finished_at).unwrap_or(session.created_at),
            outcome: session.outcome,
            kill_reason: session.kill_reason,
        }));
        frames.extend(result.map(|result| StreamFrame::Result(Box::new(result))));
        if let Some(outcome) = session.outcome {
            frames.push(StreamFrame::End(End { outcome }));
        }
        let numbered: Vec<Frame> = (after + 1..)
            .zip(frames)
            .map(|(seq, frame)| {
                let seq = if matches!(frame, StreamFrame::End(_)) { MAX_SEQ } else { seq.min(MAX_SEQ) };
                Frame::new(seq, &frame)
            })
            .collect();
        Ok(Box::pin(stream::iter(numbered)))
    }
}

fn tail(text: &str, offset: u64, kind: fn(Chunk) -> StreamFrame) -> Vec<StreamFrame> {
    let gap = (offset > 0).then_some(StreamFrame::Gap(Gap { dropped_bytes: offset }));
    let chunk = (!text.is_empty()).then(|| kind(Chunk { text: text.to_owned(), base64: None, offset }));
    gap.into_iter().chain(chunk).collect()
}
