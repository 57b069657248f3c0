//! The reaper: removes sandboxes that no driver owns, and forgets old idempotency keys.
//!
//! A sandbox is an orphan when nobody owns it for longer than a boot can take: a driver learns the name of its sandbox
//! only when `prepare` returns, so a young one without an owner may just be booting.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use backend::{SandboxId, SessionBackend};
use tokio::time::{Instant, interval};
use wire::Timestamp;

use crate::Inner;

/// How long an `Idempotency-Key` is honoured.
const IDEMPOTENCY_MS: i64 = 24 * 3_600_000;
/// Tries to remove a sandbox when there is no time left to come again.
const LAST_TRIES: u32 = 20;

/// Which sandboxes have an owner.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    owned: Mutex<HashSet<SandboxId>>,
}

impl Reaper {
    /// A driver takes responsibility.
    pub(crate) fn own(&self, id: &SandboxId) {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
    }

    /// The sandbox is gone.
    pub(crate) fn disown(&self, id: &SandboxId) {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    fn is_owned(&self, id: &SandboxId) -> bool {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
}

/// Runs until the engine stops.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut ticks = interval(inner.config.reap_interval);
    let mut seen: HashMap<SandboxId, Instant> = HashMap::new();
    loop {
        tokio::select! {
            () = inner.stopped.cancelled() => return,
            _ = ticks.tick() => {}
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("enclave_sessions_held").set(inner.slots.taken() as f64);
        let mut unowned = HashMap::new();
        for backend in &inner.backends {
            let Ok(ids) = backend.list().await else { continue };
            for id in ids.into_iter().filter(|id| !inner.reaper.is_owned(id)) {
                let since = seen.get(&id).copied().unwrap_or_else(Instant::now);
                if since.elapsed() >= inner.config.orphan_patience {
                    tracing::warn!(sandbox = %id, "removing an orphan");
                    destroy(backend.as_ref(), &id, 1).await;
                }
                unowned.insert(id, since);
            }
        }
        seen = unowned;
        let before = Timestamp::from_millis(inner.clock.now().as_millis() - IDEMPOTENCY_MS);
        if let Err(error) = inner.store.system().forget_idempotency(before).await {
            tracing::warn!(%error, "old idempotency keys stay");
        }
    }
}

/// Removes everything on every backend, whoever owns it: before the first session, and after the last.
pub(crate) async fn sweep_all(inner: &Inner) {
    for backend in &inner.backends {
        match backend.list().await {
            Ok(ids) => {
                let removals = ids.iter().map(|id| destroy(backend.as_ref(), id, LAST_TRIES));
                futures::future::join_all(removals).await;
            }
            Err(error) => tracing::error!(backend = backend.capabilities().name, %error, "cannot be swept"),
        }
    }
}

async fn destroy(backend: &dyn SessionBackend, id: &SandboxId, tries: u32) {
    for attempt in 1..=tries {
        match backend.destroy(id).await {
            Ok(residue) if residue.is_none() => return,
            Ok(residue) => tracing::warn!(sandbox = %id, attempt, residue = ?residue.0, "residue"),
            Err(error) => tracing::warn!(sandbox = %id, attempt, %error, "not destroyed"),
        }
        if attempt < tries {
            tokio::time::sleep(Duration::from_millis(50) * attempt).await;
        }
    }
}
