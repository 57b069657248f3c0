//! The reaper: removes sandboxes that no driver owns, records what an earlier process owed as torn down once it is, and
//! forgets old idempotency keys, deliveries and artifacts.
//!
//! A sandbox is an orphan when nobody owns it for longer than a boot can take: a driver learns the name of its sandbox
//! only when `prepare` returns, so a young one without an owner may just be booting.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use backend::{SandboxId, SessionBackend};
use store::Old;
use tokio::time::{Instant, interval};
use wire::Timestamp;

use crate::{
    Inner, artifacts,
    recovery::{self, Owed},
};

/// How long an `Idempotency-Key` is honoured.
const IDEMPOTENCY_MS: i64 = 24 * 3_600_000;
/// How long a delivery that is over is shown.
const DELIVERIES_MS: i64 = 30 * 24 * 3_600_000;
/// Between two looks for content of artifacts that nobody names.
const SWEEP_INTERVAL: Duration = Duration::from_hours(1);
/// First and longest pause between tries to remove a sandbox when there is no time left to come again.
const SWEEP_BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

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

    /// Whether a driver has it.
    pub(crate) fn is_owned(&self, id: &SandboxId) -> bool {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
}

/// Runs until the engine stops. `owed` is what recovery could not finish.
pub(crate) async fn run(inner: Arc<Inner>, mut owed: Vec<Owed>) {
    let mut ticks = interval(inner.config.reap_interval);
    let mut swept: Option<Instant> = None;
    // By backend: one that does not answer for once keeps the ages of its orphans.
    let mut seen: HashMap<&'static str, HashMap<SandboxId, Instant>> = HashMap::new();
    loop {
        tokio::select! {
            () = inner.stopped.cancelled() => return,
            _ = ticks.tick() => {}
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("enclave_sessions_held").set(inner.slots.taken() as f64);
        for backend in &inner.backends {
            let name = backend.capabilities().name;
            let Ok(ids) = inner.list(backend.as_ref()).await else { continue };
            owed = recovery::settle(&inner, owed, name, &ids).await;
            let before = seen.remove(name).unwrap_or_default();
            let unowned: HashMap<_, _> = ids
                .into_iter()
                .filter(|id| !inner.reaper.is_owned(id))
                .map(|id| {
                    let since = before.get(&id).copied().unwrap_or_else(Instant::now);
                    (id, since)
                })
                .collect();
            // What an earlier process left is not booting.
            let is_orphan = |(id, since): &(&SandboxId, &Instant)| {
                since.elapsed() >= inner.config.orphan_patience || owed.iter().any(|owed| owed.waits_for(id))
            };
            let removals = unowned.iter().filter(is_orphan).map(|(id, _)| {
                tracing::warn!(sandbox = %id, "removing an orphan");
                destroy(&inner, backend.as_ref(), id, Instant::now())
            });
            futures::future::join_all(removals).await;
            seen.insert(name, unowned);
        }
        artifacts::let_go(&inner).await;
        if swept.is_none_or(|swept| swept.elapsed() >= SWEEP_INTERVAL) {
            artifacts::sweep(&inner).await;
            swept = Some(Instant::now());
        }
        let before = |millis| Timestamp::from_millis(inner.clock.now().as_millis() - millis);
        let old = Old { keys: before(IDEMPOTENCY_MS), deliveries: before(DELIVERIES_MS) };
        if let Err(error) = inner.store.system().forget(old).await {
            tracing::warn!(%error, "old idempotency keys and deliveries stay");
        }
    }
}

/// Removes everything on every backend, whoever owns it: before the first session, and after the last.
pub(crate) async fn sweep_all(inner: &Inner) {
    for backend in &inner.backends {
        match inner.list(backend.as_ref()).await {
            Ok(ids) => {
                let until = Instant::now() + inner.config.sweep_patience;
                let removals = ids.iter().map(|id| destroy(inner, backend.as_ref(), id, until));
                futures::future::join_all(removals).await;
            }
            Err(error) => tracing::error!(backend = backend.capabilities().name, %error, "cannot be swept"),
        }
    }
}

/// Removes a sandbox, with further tries until the given time.
async fn destroy(inner: &Inner, backend: &dyn SessionBackend, id: &SandboxId, until: Instant) {
    let (mut pause, longest) = SWEEP_BACKOFF;
    loop {
        match inner.destroy(backend, id).await {
            Ok(residue) if residue.is_none() => return,
            Ok(residue) => tracing::warn!(sandbox = %id, residue = ?residue.0, "residue"),
            Err(error) => tracing::warn!(sandbox = %id, %error, "not destroyed"),
        }
        if Instant::now() + pause > until {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}
