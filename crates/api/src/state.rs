//! What handlers share: the engine, the settings, and the few things that are bounded over all requests.

use std::sync::Arc;

use engine::Engine;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use wire::Readiness;

use crate::settings::Settings;

/// Bytes of a body that one permit of the budget stands for.
pub(crate) const BODY_UNIT: usize = 1024;
/// Bytes that the bodies of all calls of hooks may have together: sixteen of the largest.
const CALL_BUDGET: usize = 16 * 1024 * 1024;

/// Cheap to clone: one per route and request.
#[derive(Clone, Debug)]
pub(crate) struct App {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    engine: Engine,
    settings: Settings,
    bodies: Arc<Semaphore>,
    calls: Arc<Semaphore>,
    readiness: Mutex<Option<(Instant, Readiness)>>,
}

impl App {
    pub(crate) fn new(engine: Engine, settings: Settings) -> Self {
        let units = settings.body_budget.div_ceil(BODY_UNIT).min(Semaphore::MAX_PERMITS);
        let bodies = Arc::new(Semaphore::new(units));
        let calls = Arc::new(Semaphore::new(CALL_BUDGET / BODY_UNIT));
        Self { shared: Arc::new(Shared { engine, settings, bodies, calls, readiness: Mutex::default() }) }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// What is left of the budget for bodies, in units of [`BODY_UNIT`] bytes.
    pub(crate) fn bodies(&self) -> &Arc<Semaphore> {
        &self.shared.bodies
    }

    /// The same for calls of hooks: those who make them are not known before their bodies are read, and must not take the
    /// room of those who are.
    pub(crate) fn calls(&self) -> &Arc<Semaphore> {
        &self.shared.calls
    }

    /// The last answer about being ready, and when it was found. Locked while somebody looks.
    pub(crate) fn readiness(&self) -> &Mutex<Option<(Instant, Readiness)>> {
        &self.shared.readiness
    }
}
