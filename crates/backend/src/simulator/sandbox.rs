//! One modelled sandbox: its accounting, its end, and who waits for that.

use std::{
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
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
    /// It has ended, or gone over a limit.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    meter: Meter,
    termination: Option<Termination>,
    /// The limit that it is over.
    over: Option<SandboxLimit>,
    grace: Duration,
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
        let state = State { meter, termination: None, over: None, grace: Duration::ZERO, runner: None, gateway: None };
        Self { state: Mutex::new(state), changed: Notify::new() }
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
    pub(super) fn limit(&self, limits: &Limits, grace: Duration) -> Result<(), Ended> {
        let mut state = self.state();
        if state.termination.is_some() {
            return Err(Ended);
        }
        state.meter.limit(limits);
        state.grace = grace;
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
            self.changed.notify_waiters();
        }
    }

    /// Ends it from outside.
    pub(super) fn kill(&self, termination: Termination) {
        let over = self.state().over.map(Termination::Exceeded);
        self.end(over.unwrap_or(termination));
        let runner = self.state().runner.take();
        if let Some(runner) = runner {
            runner.abort();
        }
    }

    /// Notes that it is over a limit; how long it may go on.
    pub(super) fn go_over(&self, limit: SandboxLimit) -> Duration {
        let mut state = self.state();
        state.over.get_or_insert(limit);
        state.meter.freeze(Instant::now());
        self.changed.notify_waiters();
        if limit.leaves_grace() { state.grace } else { Duration::ZERO }
    }

    /// Resolves when it is over a limit.
    pub(super) async fn overrun(&self) -> SandboxLimit {
        loop {
            let changed = self.changed.notified();
            if let Some(limit) = self.state().over {
                return limit;
            }
            changed.await;
        }
    }

    /// Resolves with how it ended.
    pub(super) async fn wait(&self) -> Termination {
        loop {
            // Made before looking: an end after the look wakes it.
            let changed = self.changed.notified();
            if let Some(termination) = &self.state().termination {
                return termination.clone();
            }
            changed.await;
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

    pub(super) fn take_room(&self, bytes: u64) -> bool {
        self.state().meter.take_room(bytes)
    }

    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.state().meter.has_room(bytes)
    }

    pub(super) fn give_room(&self, bytes: u64) {
        self.state().meter.give_room(bytes);
    }

    pub(super) fn ignite(&self, cpu: Option<Duration>) -> Burning {
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
