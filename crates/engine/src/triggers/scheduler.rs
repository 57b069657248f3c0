//! Fires what is due, and what has waited long enough.
//!
//! When a trigger fires next stands in the store, and moves on in the transaction that takes a firing up, so that of
//! several servers on one database one starts its session. A trigger that was due several times while nobody was there
//! fires once.

use std::{sync::Arc, time::Duration};

use store::{DueTrigger, StoreError, Waited, WaitingFiring};
use tokio::time::{Instant, sleep_until};
use wire::{FiringCause, Timestamp};

use super::{fire::Asked, next_firing};
use crate::{Engine, FireError, Inner};

/// How long to wait for the next look when nothing is due: other servers may end what is waited for, and the time of day
/// may be set. Also before what failed for now is tried again.
const LOOK: Duration = Duration::from_secs(5);
/// Triggers of one look.
const BATCH: u32 = 64;

/// Runs until the engine stops or takes no more sessions.
pub(crate) async fn run(inner: Arc<Inner>) {
    let engine = Engine { inner };
    loop {
        // From before the look: a clock that moves meanwhile makes the next one no later.
        let began = Instant::now();
        let pause = engine.look().await.unwrap_or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "triggers cannot be looked for");
            LOOK
        });
        tokio::select! {
            () = engine.inner.draining.cancelled() => return,
            () = engine.inner.scheduled.notified() => {}
            () = sleep_until(began + pause) => {}
        }
    }
}

impl Engine {
    /// Fires what is due, and gives how long it is until the next.
    async fn look(&self) -> Result<Duration, StoreError> {
        let system = self.inner.store.system();
        let now = self.inner.clock.now();
        let due = system.due_triggers(now, BATCH).await?;
        let waiting = system.waiting_firings(BATCH).await?;
        let is_full = due.len() == BATCH as usize || waiting.len() == BATCH as usize;
        let mut all_taken = true;
        for due in due {
            all_taken &= self.fire_due(due, now).await;
        }
        for waiting in waiting {
            all_taken &= self.fire_waiting(waiting).await;
        }
        if is_full && all_taken {
            return Ok(Duration::ZERO);
        }
        let next = system.next_trigger(now).await?;
        let until_next = next.map(|next| u64::try_from(next.as_millis() - now.as_millis()).unwrap_or(0));
        Ok(until_next.map_or(LOOK, Duration::from_millis).min(LOOK))
    }

    /// Whether it was taken up, by this server or by another.
    async fn fire_due(&self, due: DueTrigger, now: Timestamp) -> bool {
        let DueTrigger { record, next, .. } = due;
        let trigger = &record.trigger;
        // Those that were missed are this one firing. What is late by its jitter alone was not missed.
        let spread = i64::try_from(trigger.jitter_ms.unwrap_or(0)).unwrap_or(0);
        let behind = Timestamp::from_millis(now.as_millis() - spread).max(next.due);
        let schedule = model::trigger::schedule_of(&trigger.kind, now).and_then(Result::ok);
        let following = schedule.and_then(|schedule| next_firing(trigger, &schedule, behind));
        let asked = Asked::new(FiringCause::Schedule, format!("due:{}", next.due.as_millis()), next.due);
        settled(trigger.id, self.fire(&record, Asked { next: following, ..asked }).await)
    }

    async fn fire_waiting(&self, waiting: WaitingFiring) -> bool {
        let WaitingFiring { record, key, cause, due, body, .. } = waiting;
        let asked = Asked::new(cause, key, due);
        settled(record.trigger.id, self.fire(&record, Asked { body, waited: Waited::Yes, ..asked }).await)
    }
}

fn settled(trigger: wire::TriggerId, fired: Result<wire::TriggerRun, FireError>) -> bool {
    match fired {
        Ok(_) | Err(FireError::Taken | FireError::Gone) => true,
        Err(FireError::Overtaken) => false,
        Err(error @ (FireError::Later(_) | FireError::Store(_))) => {
            tracing::warn!(%trigger, error = &error as &dyn std::error::Error, "not fired yet");
            false
        }
    }
}
