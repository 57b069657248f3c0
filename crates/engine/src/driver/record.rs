//! Recording: a change of the session is written first, and shown only when it was.

use std::{sync::Arc, time::Duration};

use backend::SandboxId;
use model::{
    audit::Draft,
    phase::{Event, State},
    webhook::WebhookUrl,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use store::{Update, UpdateError};
use tokio_util::sync::CancellationToken;
use wire::{Artifact, AuditEvent, AuditType, End, PhaseChange, SessionResult, StreamFrame, TriggerId};

use crate::{
    driver::{Driver, supervise::Run},
    live::Progress,
    view, webhooks,
};

/// First and longest pause between tries to write to a store that does not answer.
const STORE_BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The pauses between tries.
pub(crate) struct Backoff<'a> {
    deadline: &'a CancellationToken,
    pause: Duration,
}

impl<'a> Backoff<'a> {
    /// Ends with the server's deadline.
    pub(crate) fn until(deadline: &'a CancellationToken) -> Self {
        Self { deadline, pause: STORE_BACKOFF.0 }
    }

    /// Whether there is time for another try.
    pub(crate) fn goes_on(&self) -> bool {
        !self.deadline.is_cancelled()
    }

    /// Waits for the next try, at most until the deadline.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            () = tokio::time::sleep(self.pause) => {}
            () = self.deadline.cancelled() => {}
        }
        self.pause = (self.pause * 2).min(STORE_BACKOFF.1);
    }
}

/// A change of the session that is to be recorded.
pub(super) struct Change {
    /// The state behind it.
    pub(super) state: State,
    /// Its audit events.
    pub(super) drafts: Vec<Draft>,
    /// Name of the sandbox, once there is one.
    pub(super) sandbox: Option<SandboxId>,
    /// The result, when this is the session's end.
    pub(super) result: Option<SessionResult>,
}

/// The change was not recorded, so nobody was told of it: the row is not this driver's any more, or the server's deadline
/// has passed.
pub(super) struct Unrecorded;

impl Driver {
    /// Records the end, with the result, in one transaction.
    pub(super) async fn finish(&mut self, run: Run) -> Result<(), Unrecorded> {
        let mut result = view::result(&self.session, &run.verdict, run.usage, run.given, run.tails, run.denials);
        (result.artifacts, result.artifacts_skipped) = (run.kept.artifacts, run.kept.skipped);
        let now = self.inner.clock.now();
        let (state, ended) = self
            .state
            .clone()
            .apply(self.session.id, Event::Ended(run.verdict), now)
            .expect("a driver ends its session once, and before it reclaims it");
        let collected = match &result.result {
            Some(value) => {
                let text = value.as_str();
                json!({ "bytes": text.len(), "sha256": hex::encode(Sha256::digest(text.as_bytes())) })
            }
            None => json!({ "bytes": 0 }),
        };
        let collected = Draft::platform(now, AuditType::ResultCollected, self.session.id, collected);
        let reason = result.kill_reason.map_or("none", wire::KillReason::as_str);
        metrics::counter!("enclave_sessions_finished_total", "outcome" => word(result.outcome), "reason" => reason)
            .increment(1);
        let kept = result.artifacts.iter().map(|artifact| {
            let Artifact { path, size, sha256 } = artifact;
            let data = json!({ "path": path, "bytes": size, "sha256": sha256 });
            Draft::platform(now, AuditType::ArtifactCollected, self.session.id, data)
        });
        let drafts = [ended, collected].into_iter().chain(kept).collect();
        self.record(Change { state, drafts, sandbox: None, result: Some(result) }).await
    }

    /// Records that nothing is left, and what was found before and could not be recorded then.
    pub(super) async fn torn_down(&mut self, found: Vec<Draft>) -> Result<(), Unrecorded> {
        let (state, draft) = self
            .state
            .clone()
            .apply(self.session.id, Event::Reclaimed, self.inner.clock.now())
            .expect("a driver reclaims after it has ended its session, once");
        let drafts = found.into_iter().chain([draft]).collect();
        self.record(Change { state, drafts, sandbox: None, result: None }).await?;
        if let Some(outcome) = self.session.outcome {
            self.live.hub.publish(&StreamFrame::End(End { outcome }));
        }
        Ok(())
    }

    /// Records a change. A store that does not answer is waited for: the alternative would be to show something that was
    /// never recorded.
    pub(super) async fn record(&mut self, change: Change) -> Result<(), Unrecorded> {
        let deadline = self.inner.deadline.clone();
        let mut backoff = Backoff::until(&deadline);
        loop {
            match self.try_record(&change).await {
                Ok(()) => return Ok(()),
                Err(UpdateError::Store(error)) if backoff.goes_on() => {
                    self.log_failure("record", &error);
                    backoff.wait().await;
                }
                Err(error) => {
                    self.log_failure("record", &error);
                    return Err(Unrecorded);
                }
            }
        }
    }

    /// One try: writes the state and the audit events of the change, then takes on and publishes both.
    pub(super) async fn try_record(&mut self, change: &Change) -> Result<(), UpdateError> {
        let Change { state, drafts, sandbox, result } = change;
        let mut session = self.session.clone();
        view::show(state, &mut session);
        session.usage = result.as_ref().map(|result| result.usage).or(session.usage);
        let url = self.spec.webhook_url.as_ref().map(WebhookUrl::as_str);
        let outbox: Vec<_> =
            result.iter().filter_map(|result| webhooks::finished(&self.inner, url, &session, result)).collect();
        let told = !outbox.is_empty();
        let update = Update {
            session: session.clone(),
            sandbox: sandbox.as_ref().map(ToString::to_string),
            result: result.clone(),
            drafts: drafts.clone(),
            outbox,
            artifacts: result.as_ref().map_or_else(Vec::new, |result| result.artifacts.clone()),
        };
        let events = self.inner.store.tenant(session.org_id).update_session(update).await?;
        if told {
            self.inner.outgoing.notify_one();
        }
        if result.is_some() && session.created_by.starts_with(TriggerId::PREFIX) {
            // A firing may wait for this.
            self.inner.scheduled.notify_one();
        }
        self.state = state.clone();
        self.session = session;
        self.live.progress.send_modify(|progress| {
            *progress = Progress {
                session: Arc::new(self.session.clone()),
                result: result.clone().map(Arc::new).or_else(|| progress.result.clone()),
            };
        });
        self.publish(events);
        if let Some(result) = result {
            self.live.hub.publish(&StreamFrame::Result(Box::new(result.clone())));
        }
        Ok(())
    }

    /// Shows audit events, and the phase that they led to.
    pub(super) fn publish(&self, events: Vec<AuditEvent>) {
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
