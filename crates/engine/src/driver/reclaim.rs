//! Reclaiming: destroy, look, and again, until nothing is left.

use std::time::Duration;

use backend::SandboxId;
use model::audit::Draft;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use wire::AuditType;

use crate::{admission::Place, driver::Driver};

/// Tries during which the session keeps its place under the ceiling; after that others may run, and this one goes on in
/// the background.
const TRIES_IN_PLACE: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(50);

impl Driver {
    /// Destroys the sandbox until the backend finds nothing left, and only then records the session as torn down. Gives
    /// up only when the server's own deadline has passed; the next start's recovery goes on from there.
    pub(super) async fn reclaim(&mut self, id: &SandboxId, permit: OwnedSemaphorePermit, place: Place) {
        let mut held = Some((permit, place));
        let mut pause = FIRST_PAUSE;
        let began = tokio::time::Instant::now();
        for attempt in 1_u32.. {
            match self.backend.destroy(id).await {
                Ok(residue) if residue.is_none() => break,
                Ok(residue) => {
                    tracing::warn!(session = %self.session.id, sandbox = %id, residue = ?residue.0, "residue");
                    if attempt == 1 {
                        let now = self.inner.clock.now();
                        let data = json!({ "residue": residue.0 });
                        let found = Draft::platform(now, AuditType::ResidueFound, self.session.id, data);
                        self.record(vec![found], None, None).await;
                    }
                }
                Err(error) => self.log_failure("destroy", &error),
            }
            if attempt >= TRIES_IN_PLACE {
                held = None;
                if self.inner.deadline.is_cancelled() {
                    return;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(self.inner.config.reap_interval);
        }
        drop(held);
        self.inner.reaper.disown(id);
        metrics::histogram!("enclave_sandbox_reclaim_seconds", "backend" => self.backend.capabilities().name)
            .record(began.elapsed().as_secs_f64());
        self.torn_down().await;
    }
}
