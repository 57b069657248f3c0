//! One modelled sandbox: its accounting, its end, and who waits for that.

use std::{
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
};

use model::{gateway::ToGateway, limits::Limits};
use tokio::{
    sync::{Notify, mpsc},
    task::AbortHandle,
    time::Instant,
};

use super::{
    gateway::ModelGateway,
    meter::{Burning, Meter},
};
use crate::{Observation, SandboxLimit, Termination};

/// Shared by the simulator, which answers for it, and the model of its runner.
#[derive(Debug)]
pub(super) struct Sandbox {
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Debug)]
struct State {
    meter: Meter,
    termination: Option<Termination>,
    runner: Option<AbortHandle>,
    /// Its gateway, until its runner takes it over.
    gateway: Option<Way>,
}

/// A gateway, and what it is told.
pub(super) type Way = (ModelGateway, mpsc::Receiver<ToGateway>);

/// The sandbox has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended;

impl Sandbox {
    pub(super) fn new(meter: Meter) -> Self {
        let state = State { meter, termination: None, runner: None, gateway: None };
        Self { state: Mutex::new(state), ended: Notify::new() }
    }

    /// Starts the model of the runner, unless the sandbox was ended before it had one.
    pub(super) fn start(&self, runner: impl Future<Output = ()> + Send + 'static) -> Result<(), Ended> {
        let mut state = self.state();
        if state.termination.is_some() {
            return Err(Ended);
        }
        state.runner = Some(tokio::spawn(runner).abort_handle());
        Ok(())
    }

    /// Puts limits into force.
    pub(super) fn limit(&self, limits: &Limits) -> Result<(), Ended> {
        let mut state = self.state();
        if state.termination.is_some() {
            return Err(Ended);
        }
        state.meter.limit(limits);
        Ok(())
    }

    /// Gives it a gateway.
    pub(super) fn set_gateway(&self, way: Way) -> Result<(), Ended> {
        let mut state = self.state();
        if state.termination.is_some() {
            return Err(Ended);
        }
        state.gateway = Some(way);
        Ok(())
    }

    /// Takes the gateway over.
    pub(super) fn take_gateway(&self) -> Option<Way> {
        self.state().gateway.take()
    }

    /// Notes how it ended; the first end stays.
    pub(super) fn end(&self, termination: Termination) {
        let mut state = self.state();
        if state.termination.is_none() {
            state.meter.freeze(Instant::now());
            state.termination = Some(termination);
            state.gateway = None;
            self.ended.notify_waiters();
        }
    }

    /// Ends it from outside.
    pub(super) fn kill(&self, termination: Termination) {
        self.end(termination);
        let runner = self.state().runner.take();
        if let Some(runner) = runner {
            runner.abort();
        }
    }

    /// Resolves with how it ended.
    pub(super) async fn wait(&self) -> Termination {
        loop {
            // Made before looking: an end after the look wakes it.
            let ended = self.ended.notified();
            if let Some(termination) = &self.state().termination {
                return termination.clone();
            }
            ended.await;
        }
    }

    pub(super) fn observe(&self) -> Observation {
        self.state().meter.observe(Instant::now())
    }

    /// Counts the start of a program.
    pub(super) fn begin(&self, salt: u64) {
        self.state().meter.start(salt);
    }

    pub(super) fn allocate(&self, bytes: u64) -> Result<(), SandboxLimit> {
        self.state().meter.allocate(bytes)
    }

    pub(super) fn fill(&self, bytes: u64) -> Result<(), SandboxLimit> {
        self.state().meter.fill(bytes)
    }

    pub(super) fn ignite(&self, cpu: Option<std::time::Duration>) -> Burning {
        self.state().meter.ignite(cpu, Instant::now())
    }

    pub(super) fn burnt_out(&self, burning: Burning) -> Result<(), SandboxLimit> {
        self.state().meter.burnt_out(burning)
    }

    /// What burns is interrupted.
    pub(super) fn put_out(&self) {
        self.state().meter.freeze(Instant::now());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
