//! Reclaiming: destroy, look, and again, until nothing is left.

use std::{collections::HashSet, mem, time::Duration};

use backend::SandboxId;
use model::audit::Draft;
use serde_json::json;
use wire::AuditType;

use crate::driver::{Driver, GaveUp, Held, record::Change};

/// Tries during which the session keeps its place under the ceiling; after that others may run, and this one goes on in
/// the background.
const TRIES_IN_PLACE: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(50);

impl Driver {
    /// Destroys the sandbox until the backend finds nothing left. Gives up only when the server's own deadline has passed;
    /// the next start's recovery goes on from there. Gives what was found on the way and is not yet recorded.
    pub(super) async fn reclaim(&mut self, id: &SandboxId, mut held: Option<Held>) -> Result<Vec<Draft>, GaveUp> {
        let mut pause = FIRST_PAUSE;
        let began = tokio::time::Instant::now();
        let (mut told, mut found) = (false, Vec::new());
        for attempt in 1_u32.. {
            match self.inner.destroy(self.backend.as_ref(), id).await {
                Ok(residue) if residue.is_none() => break,
                Ok(residue) => {
                    tracing::warn!(session = %self.session.id, sandbox = %id, residue = ?residue.0, "residue");
                    if !mem::replace(&mut told, true) {
                        let (now, data) = (self.inner.clock.now(), json!({ "residue": residue.0 }));
                        found.push(Draft::platform(now, AuditType::ResidueFound, self.session.id, data));
                    }
                }
                Err(error) => self.log_failure("destroy", &error),
            }
            if !found.is_empty() {
                // One try each time: a store that does not answer must not keep the sandbox standing.
                let drafts = mem::take(&mut found);
                let change = Change { state: self.state.clone(), drafts, sandbox: None, result: None };
                if let Err(error) = self.try_record(&change).await {
                    self.log_failure("record", &error);
                    found = change.drafts;
                }
            }
            if attempt >= TRIES_IN_PLACE {
                held = None;
                if self.inner.deadline.is_cancelled() {
                    return Err(GaveUp);
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.inner.config.reap_interval);
        }
        drop(held);
        self.inner.reaper.disown(id);
        metrics::histogram!("enclave_sandbox_reclaim_seconds", "backend" => self.backend.capabilities().name)
            .record(began.elapsed().as_secs_f64());
        Ok(found)
    }

    /// The same for what is left of sandboxes besides the workload's.
    pub(super) async fn reclaim_leftovers(&mut self, mut found: Vec<Draft>) -> Result<Vec<Draft>, GaveUp> {
        for id in mem::take(&mut self.leftovers) {
            found.extend(self.reclaim(&id, None).await?);
        }
        Ok(found)
    }

    /// Waits until nothing can be left of a boot that was given up. What it made has no name here, but it is among what
    /// stands now without an owner, and the reaper removes it; what gets an owner meanwhile was another session's boot.
    pub(super) async fn outlast_strays(&self) -> Result<(), GaveUp> {
        let mut suspects: Option<HashSet<SandboxId>> = None;
        loop {
            match self.inner.list(self.backend.as_ref()).await {
                Ok(ids) => {
                    let is_suspect = |id: &SandboxId| suspects.as_ref().is_none_or(|suspects| suspects.contains(id));
                    let unowned = ids.into_iter().filter(|id| !self.inner.reaper.is_owned(id) && is_suspect(id));
                    let left: HashSet<_> = unowned.collect();
                    if left.is_empty() {
                        return Ok(());
                    }
                    suspects = Some(left);
                }
                Err(error) => self.log_failure("list", &error),
            }
            tokio::select! {
                () = tokio::time::sleep(self.inner.config.reap_interval) => {}
                () = self.inner.deadline.cancelled() => return Err(GaveUp),
            }
        }
    }
}
