//! A simulator under any name, of which some sandboxes cannot be removed.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use backend::{
    AssignError, Capabilities, DestroyError, Observation, ObserveError, PrepareError, Prepared, Residue, Sandbox,
    SandboxId, SandboxSpec, SessionBackend, Shape, Termination, simulator::Simulator,
};

pub(crate) struct Wrapped {
    simulator: Arc<Simulator>,
    capabilities: Capabilities,
    /// Sandboxes of which something is left, whoever removes them.
    pub(crate) stubborn: Mutex<HashSet<SandboxId>>,
    lists_badly: AtomicBool,
    pub(crate) kills: AtomicUsize,
    lists: AtomicUsize,
}

impl Wrapped {
    pub(crate) fn new(simulator: Arc<Simulator>, name: &'static str) -> Self {
        let capabilities = Capabilities { name, ..simulator.capabilities().clone() };
        Self {
            simulator,
            capabilities,
            stubborn: Mutex::default(),
            lists_badly: AtomicBool::new(false),
            kills: AtomicUsize::new(0),
            lists: AtomicUsize::new(0),
        }
    }

    /// Every second list fails from now on.
    pub(crate) fn list_badly(&self) {
        self.lists_badly.store(true, Ordering::SeqCst);
    }

    /// How often the engine has listed.
    pub(crate) fn lists(&self) -> usize {
        self.lists.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl SessionBackend for Wrapped {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn prepare(&self, shape: &Shape) -> Result<Prepared, PrepareError> {
        self.simulator.prepare(shape).await
    }

    async fn assign(&self, prepared: Prepared, spec: &SandboxSpec) -> Result<Sandbox, AssignError> {
        self.simulator.assign(prepared, spec).await
    }

    async fn wait(&self, id: &SandboxId) -> Result<Termination, ObserveError> {
        self.simulator.wait(id).await
    }

    async fn observe(&self, id: &SandboxId) -> Result<Observation, ObserveError> {
        self.simulator.observe(id).await
    }

    async fn kill(&self, id: &SandboxId) -> Result<(), ObserveError> {
        self.kills.fetch_add(1, Ordering::SeqCst);
        self.simulator.kill(id).await
    }

    async fn destroy(&self, id: &SandboxId) -> Result<Residue, DestroyError> {
        if self.stubborn.lock().unwrap().contains(id) {
            return Ok(Residue(vec![format!("sandbox {id}, which is stubborn")]));
        }
        self.simulator.destroy(id).await
    }

    async fn list(&self) -> Result<Vec<SandboxId>, ObserveError> {
        let is_second = self.lists.fetch_add(1, Ordering::SeqCst) % 2 == 1;
        if is_second && self.lists_badly.load(Ordering::SeqCst) {
            return Err(ObserveError::Unreachable { step: "list", source: std::io::Error::other("as ordered") });
        }
        self.simulator.list().await
    }
}
