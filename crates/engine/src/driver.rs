//! The driver: the one task that owns a session, from its place in the queue until nothing of it is left.
//!
//! ```text
//! turn --> boot --> supervise --> finish --> reclaim
//!   |        |                      ^
//!   +--------+----------------------+   whatever fails on the way goes to finish with a verdict, never past it
//! ```
//!
//! It is the only caller of [`State::apply`], so the only writer of a session's phase. What it publishes was recorded
//! before: nobody sees a state that a crash could take back.

mod reclaim;
mod supervise;

use std::{sync::Arc, time::Duration};

use backend::{SandboxId, SandboxSpec, SessionBackend, Shape};
use model::{
    audit::Draft,
    phase::{Event, State, Verdict},
    session::SessionSpec,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use store::{Update, UpdateError};
use tokio::sync::OwnedSemaphorePermit;
use wire::{AuditEvent, AuditType, End, FaultCode, PhaseChange, Session, SessionResult, StreamFrame};

use crate::{
    Inner,
    admission::Place,
    driver::supervise::Run,
    live::{Live, Progress},
    view,
};

/// First and longest pause between tries to write to a store that does not answer.
const STORE_BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// One session's owner.
struct Driver {
    inner: Arc<Inner>,
    backend: Arc<dyn SessionBackend>,
    live: Arc<Live>,
    session: Session,
    state: State,
    spec: SessionSpec,
}

/// Enters the session and starts its driver. `events` are the audit events of its creation.
pub(crate) fn start(
    inner: &Arc<Inner>,
    backend: Arc<dyn SessionBackend>,
    session: Session,
    spec: SessionSpec,
    place: Place,
    events: Vec<AuditEvent>,
) {
    let live = inner.registry.enter(&session);
    let driver = Driver { inner: Arc::clone(inner), backend, live, session, state: State::Pending, spec };
    driver.publish(events);
    inner.drivers.spawn(driver.run(place));
}

impl Driver {
    async fn run(mut self, place: Place) {
        let permit = match self.turn(&place).await {
            Ok(permit) => permit,
            Err(verdict) => return self.end(Run::never(verdict), None).await,
        };
        let (run, left) = match self.boot().await {
            Ok(sandbox) => {
                let id = sandbox.id.clone();
                (self.supervise(sandbox).await, Some(id))
            }
            Err(NotBooted { verdict, left }) => (Run::never(verdict), left),
        };
        self.end(run, left.map(|id| (id, permit, place))).await;
    }

    /// Finish, and reclaim what is left.
    async fn end(&mut self, run: Run, left: Option<(SandboxId, OwnedSemaphorePermit, Place)>) {
        self.finish(run).await;
        match left {
            Some((id, permit, place)) => self.reclaim(&id, permit, place).await,
            None => self.torn_down().await,
        }
        self.inner.registry.finish(self.session.id);
    }

    /// Waits in the queue.
    async fn turn(&self, place: &Place) -> Result<OwnedSemaphorePermit, Verdict> {
        tokio::select! {
            permit = place.turn() => Ok(permit),
            by = self.live.cancelled() => Err(Verdict::Cancelled { by }),
            () = self.inner.draining.cancelled() => Err(Verdict::Faulted(drained())),
        }
    }

    /// Makes the sandbox. It is never abandoned half made: a cancellation is looked at when it stands, so that there is
    /// a name to destroy it by.
    async fn boot(&self) -> Result<backend::Sandbox, NotBooted> {
        let shape = Shape {
            image: self.session.image.clone(),
            language: self.spec.language,
            disk_bytes: self.spec.limits.disk_bytes,
        };
        let began = tokio::time::Instant::now();
        let prepared = self.backend.prepare(&shape).await.map_err(|error| {
            self.log_failure("prepare", &error);
            let detail = "the sandbox could not be made ready";
            NotBooted { verdict: Verdict::Faulted(view::fault(FaultCode::SandboxFailed, detail)), left: None }
        })?;
        let id = prepared.id.clone();
        self.inner.reaper.own(&id);
        let spec = SandboxSpec { limits: self.spec.limits };
        let sandbox = self.backend.assign(prepared, &spec).await.map_err(|error| {
            self.log_failure("assign", &error);
            let detail = "the session's limits could not be put into force";
            NotBooted { verdict: Verdict::Faulted(view::fault(FaultCode::SandboxFailed, detail)), left: Some(id) }
        })?;
        metrics::histogram!("enclave_sandbox_boot_seconds", "backend" => self.backend.capabilities().name)
            .record(began.elapsed().as_secs_f64());
        Ok(sandbox)
    }

    /// Records the end, with the result, in one transaction.
    async fn finish(&mut self, run: Run) {
        let result = view::result(&self.session, &run.verdict, run.usage, run.given, run.tails);
        let now = self.inner.clock.now();
        let (state, ended) = self
            .state
            .clone()
            .apply(self.session.id, Event::Ended(run.verdict), now)
            .expect("a driver ends its session once, and before it reclaims it");
        let collected = match &result.result {
            Some(value) => {
                let text = value.to_string();
                json!({ "bytes": text.len(), "sha256": hex::encode(Sha256::digest(text.as_bytes())) })
            }
            None => json!({ "bytes": 0 }),
        };
        let collected = Draft::platform(now, AuditType::ResultCollected, self.session.id, collected);
        self.state = state;
        self.session.usage = Some(run.usage);
        let reason = result.kill_reason.map_or("none", wire::KillReason::as_str);
        metrics::counter!("enclave_sessions_finished_total", "outcome" => word(result.outcome), "reason" => reason)
            .increment(1);
        self.record(vec![ended, collected], None, Some(result)).await;
    }

    /// Records that nothing is left.
    async fn torn_down(&mut self) {
        let (state, draft) = self
            .state
            .clone()
            .apply(self.session.id, Event::Reclaimed, self.inner.clock.now())
            .expect("a driver reclaims after it has ended its session, once");
        self.state = state;
        self.record(vec![draft], None, None).await;
        if let Some(outcome) = self.session.outcome {
            self.live.hub.publish(&StreamFrame::End(End { outcome }));
        }
    }

    /// Writes the present state and the audit events of the change, then publishes both. A store that does not answer is
    /// waited for: the alternative would be to show something that was never recorded.
    async fn record(&mut self, drafts: Vec<Draft>, sandbox: Option<&SandboxId>, result: Option<SessionResult>) {
        view::show(&self.state, &mut self.session);
        let tenant = self.inner.store.tenant(self.session.org_id);
        let (mut pause, longest) = STORE_BACKOFF;
        let events = loop {
            let update = Update {
                session: self.session.clone(),
                sandbox: sandbox.map(ToString::to_string),
                result: result.clone(),
                drafts: drafts.clone(),
                outbox: Vec::new(),
            };
            match tenant.update_session(update).await {
                Ok(events) => break events,
                Err(UpdateError::Store(error)) if !self.inner.deadline.is_cancelled() => {
                    self.log_failure("record", &error);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(longest);
                }
                Err(error) => {
                    self.log_failure("record", &error);
                    break Vec::new();
                }
            }
        };
        self.live.progress.send_modify(|progress| {
            *progress = Progress {
                session: Arc::new(self.session.clone()),
                result: result.clone().map(Arc::new).or_else(|| progress.result.clone()),
            };
        });
        self.publish(events);
        if let Some(result) = result {
            self.live.hub.publish(&StreamFrame::Result(Box::new(result)));
        }
    }

    fn publish(&self, events: Vec<AuditEvent>) {
        let ts = events.last().map_or_else(|| self.inner.clock.now(), |event| event.ts);
        for event in events {
            self.live.hub.publish(&StreamFrame::Audit(Box::new(event)));
        }
        self.live.hub.publish(&StreamFrame::Phase(PhaseChange {
            phase: self.session.phase,
            ts,
            outcome: self.session.outcome,
            kill_reason: self.session.kill_reason,
        }));
    }

    fn log_failure(&self, step: &'static str, error: &dyn std::error::Error) {
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        tracing::error!(session = %self.session.id, step, cause, "{error}");
    }
}

/// A session that never got to run.
struct NotBooted {
    verdict: Verdict,
    left: Option<SandboxId>,
}

fn drained() -> wire::SessionFault {
    view::fault(FaultCode::ServerDrained, "the server shut down before the session could finish")
}

fn word(outcome: wire::Outcome) -> &'static str {
    match outcome {
        wire::Outcome::Succeeded => "succeeded",
        wire::Outcome::Failed => "failed",
        wire::Outcome::Killed => "killed",
        wire::Outcome::Cancelled => "cancelled",
        wire::Outcome::Faulted => "faulted",
    }
}
