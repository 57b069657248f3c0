//! Sandboxes booted ahead of the sessions that will need them, over any backend.
//!
//! What was asked for lately is likely to be asked for again: the pool remembers as many asks as it has places, and keeps
//! a sandbox ready for each of them. A ready sandbox belongs to nobody, and is handed out once. Boots ahead are made one
//! at a time, so that they take little from the sessions that run; who finds nothing ready boots for himself, as without
//! a pool.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::Notify, time::sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    AssignError, Capabilities, DestroyError, Observation, ObserveError, PrepareError, Prepared, Residue, Sandbox,
    SandboxId, SandboxLimit, SandboxSpec, SessionBackend, Shape, Termination,
};

/// Before the next boot ahead: a session that was just given its sandbox does most of its work in this time.
const PAUSE: Duration = Duration::from_millis(50);
/// Before the next boot ahead after one that failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// A backend whose sandboxes are booted ahead.
pub struct Pool {
    backend: Arc<dyn SessionBackend>,
    kept: Arc<Kept>,
    filling: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// What the pool shares with its task.
struct Kept {
    places: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// The last asks, oldest first.
    asked: VecDeque<Shape>,
    ready: Vec<Ready>,
    closed: bool,
}

struct Ready {
    prepared: Prepared,
    /// Notices its end.
    watch: AbortOnDropHandle<()>,
}

impl Pool {
    /// Over a backend, with so many places. Nothing is booted before somebody asks, or [`Pool::expect`] is called.
    pub fn new(backend: Arc<dyn SessionBackend>, places: usize) -> Self {
        let kept = Arc::new(Kept { places, state: Mutex::default(), changed: Notify::new() });
        let filling = tokio::spawn(fill(Arc::clone(&backend), Arc::clone(&kept)));
        Self { backend, kept, filling: Mutex::new(Some(AbortOnDropHandle::new(filling))) }
    }

    /// Boots ahead for a session of this shape, as if it had just been asked for.
    pub fn expect(&self, shape: &Shape) {
        self.kept.ask(shape);
    }

    /// Removes what is ready. From here on it is as if there were no pool.
    pub async fn close(&self) {
        let ready = {
            let mut state = self.kept.state();
            state.closed = true;
            std::mem::take(&mut state.ready)
        };
        let filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(filling) = filling {
            // What it was booting is found by `list`.
            filling.abort();
            let _ = filling.await;
        }
        for ready in ready {
            remove(self.backend.as_ref(), &ready.prepared.id).await;
        }
    }

    /// How many are ready.
    pub fn ready(&self) -> usize {
        self.kept.state().ready.len()
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("backend", &self.capabilities().name)
            .field("places", &self.kept.places)
            .finish_non_exhaustive()
    }
}

impl Kept {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers an ask.
    fn ask(&self, shape: &Shape) {
        let mut state = self.state();
        state.asked.push_back(shape.clone());
        if state.asked.len() > self.places {
            state.asked.pop_front();
        }
        drop(state);
        self.changed.notify_one();
    }

    /// What is ready for an ask.
    fn take(&self, shape: &Shape) -> Option<Ready> {
        let mut state = self.state();
        let at = state.ready.iter().position(|ready| ready.prepared.shape == *shape)?;
        Some(state.ready.swap_remove(at))
    }
}

impl State {
    /// A shape of which fewer are ready than were asked for.
    fn missing(&self) -> Option<Shape> {
        let lacks = |shape: &&Shape| self.count_ready(shape) < self.count_asked(shape);
        if self.closed { None } else { self.asked.iter().rev().find(lacks).cloned() }
    }

    /// One that is ready, and more than were asked for.
    fn surplus(&mut self) -> Option<Ready> {
        let more = |ready: &Ready| self.count_ready(&ready.prepared.shape) > self.count_asked(&ready.prepared.shape);
        let at = self.ready.iter().position(more)?;
        Some(self.ready.swap_remove(at))
    }

    fn count_ready(&self, shape: &Shape) -> usize {
        self.ready.iter().filter(|ready| ready.prepared.shape == *shape).count()
    }

    fn count_asked(&self, shape: &Shape) -> usize {
        self.asked.iter().filter(|asked| *asked == shape).count()
    }
}

/// Keeps ready what was asked for.
async fn fill(backend: Arc<dyn SessionBackend>, kept: Arc<Kept>) {
    loop {
        kept.changed.notified().await;
        loop {
            sleep(PAUSE).await;
            // In two steps: the lock is not held while something is removed.
            let surplus = kept.state().surplus();
            if let Some(surplus) = surplus {
                remove(backend.as_ref(), &surplus.prepared.id).await;
                continue;
            }
            let missing = kept.state().missing();
            let Some(shape) = missing else { break };
            match backend.prepare(&shape).await {
                Ok(prepared) => {
                    backend.rest(&prepared.id).await;
                    keep(&backend, &kept, prepared);
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "no sandbox could be booted ahead");
                    if let Some(left) = error.left() {
                        remove(backend.as_ref(), left).await;
                    }
                    sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
    }
}

/// Puts a sandbox where it is found, and takes it away again should it end.
fn keep(backend: &Arc<dyn SessionBackend>, kept: &Arc<Kept>, prepared: Prepared) {
    // Held until it is there to be found by its watch.
    let mut state = kept.state();
    let watch = watch(Arc::clone(backend), Arc::clone(kept), prepared.id.clone());
    state.ready.push(Ready { prepared, watch: AbortOnDropHandle::new(tokio::spawn(watch)) });
}

async fn watch(backend: Arc<dyn SessionBackend>, kept: Arc<Kept>, id: SandboxId) {
    let ended = backend.wait(&id).await;
    let found = {
        let mut state = kept.state();
        let at = state.ready.iter().position(|ready| ready.prepared.id == id);
        at.map(|at| state.ready.swap_remove(at))
    };
    let Some(Ready { prepared, watch }) = found else { return };
    // It is this very task, which has something left to do.
    watch.detach();
    drop(prepared);
    tracing::warn!(sandbox = %id, ?ended, "a sandbox that was ready has ended");
    remove(backend.as_ref(), &id).await;
    kept.changed.notify_one();
}

async fn remove(backend: &dyn SessionBackend, id: &SandboxId) {
    match backend.destroy(id).await {
        Ok(residue) if residue.is_none() => {}
        // It has no owner: the next look for orphans finds it.
        Ok(residue) => tracing::warn!(sandbox = %id, residue = ?residue.0, "residue"),
        Err(error) => tracing::warn!(sandbox = %id, error = &error as &dyn std::error::Error, "not destroyed"),
    }
}

#[async_trait]
impl SessionBackend for Pool {
    fn capabilities(&self) -> &Capabilities {
        self.backend.capabilities()
    }

    async fn prepare(&self, shape: &Shape) -> Result<Prepared, PrepareError> {
        let ready = self.kept.take(shape);
        self.kept.ask(shape);
        match ready {
            Some(ready) => Ok(ready.prepared),
            None => self.backend.prepare(shape).await,
        }
    }

    async fn rest(&self, id: &SandboxId) {
        self.backend.rest(id).await;
    }

    async fn assign(&self, prepared: Prepared, spec: &SandboxSpec) -> Result<Sandbox, AssignError> {
        self.backend.assign(prepared, spec).await
    }

    async fn wait(&self, id: &SandboxId) -> Result<Termination, ObserveError> {
        self.backend.wait(id).await
    }

    async fn overrun(&self, id: &SandboxId) -> Result<SandboxLimit, ObserveError> {
        self.backend.overrun(id).await
    }

    async fn observe(&self, id: &SandboxId) -> Result<Observation, ObserveError> {
        self.backend.observe(id).await
    }

    async fn kill(&self, id: &SandboxId) -> Result<(), ObserveError> {
        self.backend.kill(id).await
    }

    async fn destroy(&self, id: &SandboxId) -> Result<Residue, DestroyError> {
        self.backend.destroy(id).await
    }

    /// Without those that are ready: they have an owner, which is the pool.
    async fn list(&self) -> Result<Vec<SandboxId>, ObserveError> {
        let mut listed = self.backend.list().await?;
        let state = self.kept.state();
        listed.retain(|id| !state.ready.iter().any(|ready| ready.prepared.id == *id));
        Ok(listed)
    }
}
