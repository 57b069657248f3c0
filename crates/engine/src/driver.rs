//! The driver: the one task that owns a session, from its place in the queue until nothing of it is left.
//!
//! ```text
//! turn --> inputs --> boot --> supervise --> finish --> reclaim
//!   |         |         |                      ^
//!   +---------+---------+----------------------+   whatever fails on the way goes to finish with a verdict, never past it
//! ```
//!
//! It is the only caller of [`State::apply`], so the only writer of a session's phase. What it publishes was recorded
//! before: nobody sees a state that a crash could take back.

mod artifacts;
pub(crate) mod clone;
mod egress;
mod inputs;
mod reclaim;
mod record;
mod report;
mod services;
mod start;
mod supervise;
mod turns;
mod verdict;

pub(crate) use record::Backoff;

use std::{sync::Arc, time::Duration};

use backend::{Prepared, SandboxId, SandboxSpec, SessionBackend, Shape, patience::Patience};
use model::{
    phase::{State, Verdict},
    session::SessionSpec,
};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use wire::{AuditEvent, FaultCode, Session};

use crate::{
    Inner,
    admission::Place,
    driver::{
        egress::Heard, inputs::Inputs, record::Unrecorded, services::Services, supervise::Run, turns::Conversation,
    },
    live::Live,
    uploads::Taken,
    view,
};

/// How long the end of a session may wait to be recorded before its sandbox is killed for good.
const RECORD_PATIENCE: Duration = Duration::from_secs(1);
/// Sandboxes that are tried for a session until one boots.
const BOOT_TRIES: u32 = 2;

/// One session's owner.
struct Driver {
    inner: Arc<Inner>,
    backend: Arc<dyn SessionBackend>,
    live: Arc<Live>,
    session: Session,
    state: State,
    spec: SessionSpec,
    /// Its bindings, once its gateway has them.
    services: Option<Services>,
    uploads: Option<Taken>,
    /// Sandboxes besides the workload's own that are not gone yet.
    leftovers: Vec<SandboxId>,
    /// What the gateways before the workload's have told.
    before: Heard,
    /// Its turns, when it is interactive.
    talk: Option<Conversation>,
}

/// What a session is run with.
pub(crate) struct Given {
    pub(crate) backend: Arc<dyn SessionBackend>,
    pub(crate) spec: SessionSpec,
    /// Files that came beside the request.
    pub(crate) uploads: Option<Taken>,
    pub(crate) place: Place,
}

/// Starts the session's driver. `events` are the audit events of its creation.
pub(crate) fn start(inner: &Arc<Inner>, live: Arc<Live>, session: Session, given: Given, events: Vec<AuditEvent>) {
    let Given { backend, spec, uploads, place } = given;
    let talk = live.turns.as_ref().and_then(Conversation::new);
    let driver = Driver {
        inner: Arc::clone(inner),
        backend,
        live,
        session,
        state: State::Pending,
        spec,
        uploads,
        services: None,
        leftovers: Vec::new(),
        before: Heard::default(),
        talk,
    };
    driver.publish(events);
    inner.drivers.spawn(driver.run(place));
}

impl Driver {
    async fn run(mut self, mut place: Place) {
        if let Err(verdict) = self.turn(&mut place).await {
            return self.end(Run::never(verdict), Left::Nothing, None).await;
        }
        let (run, left) = match self.ready().await {
            Ok((sandbox, inputs)) => {
                let id = sandbox.id.clone();
                (self.supervise(sandbox, inputs).await, Left::Sandbox(id))
            }
            Err(NotBooted { verdict, left }) => (Run::never(verdict), left),
        };
        self.end(run, left, Some(place)).await;
    }

    /// Finish, and reclaim what is left. A session whose end is not recorded here is the next start's to end, and its
    /// sandbox is removed all the same.
    async fn end(&mut self, mut run: Run, left: Left, held: Option<Held>) {
        run.add(self.heard_before());
        // Whatever was reported of its end: nothing of it runs while the store is waited for.
        let guard = left.sandbox().map(|id| self.guard(id, Instant::now() + RECORD_PATIENCE));
        // What is known of its turns and terminals comes before its own end.
        self.abort_turns().await;
        self.live.board.close();
        self.live.board.recorded().await;
        let finished = self.finish(run).await;
        drop(guard);
        let reclaimed = match &left {
            Left::Nothing => Ok(Vec::new()),
            Left::Sandbox(id) => self.reclaim(id, held).await,
            Left::Unnamed => {
                drop(held);
                self.outlast_strays().await.map(|()| Vec::new())
            }
        };
        let reclaimed = match reclaimed {
            Ok(found) => self.reclaim_leftovers(found).await,
            Err(GaveUp) => Err(GaveUp),
        };
        let told = match (finished, reclaimed) {
            (Ok(()), Ok(found)) => self.torn_down(found).await.is_ok(),
            (Err(Unrecorded), _) | (_, Err(GaveUp)) => false,
        };
        if told {
            self.inner.registry.finish(self.session.id);
        } else {
            self.inner.registry.forget(self.session.id);
        }
    }

    /// Waits in the queue.
    async fn turn(&self, place: &mut Place) -> Result<(), Verdict> {
        tokio::select! {
            // In this order: a place that is free as well must not start what is to end.
            biased;
            by = self.live.cancelled() => Err(Verdict::Cancelled { by }),
            () = self.inner.draining.cancelled() => Err(Verdict::Faulted(drained())),
            () = place.turn() => Ok(()),
        }
    }

    /// The workload's sandbox, and what is put into it.
    async fn ready(&mut self) -> Result<(backend::Sandbox, Inputs), NotBooted> {
        let inputs = self.inputs().await?;
        let (shape, spec) = self.workload().await?;
        Ok((self.boot(shape, spec).await?, inputs))
    }

    /// What the workload's sandbox is.
    async fn workload(&mut self) -> Result<(Shape, SandboxSpec), NotBooted> {
        let shape = Shape {
            image: self.session.image.clone(),
            language: self.spec.language,
            disk_bytes: self.spec.limits.disk_bytes,
            egress: self.spec.has_egress(),
        };
        let gateway = self.gateway_spec().await.map_err(|error| {
            self.log_failure("open bindings", &error);
            let verdict = failed("a binding of the session is gone, or its secret cannot be opened");
            NotBooted { verdict, left: Left::Nothing }
        })?;
        Ok((shape, SandboxSpec { limits: self.spec.limits, gateway, grace: self.grace() }))
    }

    /// Makes a sandbox.
    async fn boot(&self, shape: Shape, spec: SandboxSpec) -> Result<backend::Sandbox, NotBooted> {
        let began = Instant::now();
        let prepared = tokio::select! {
            biased;
            prepared = self.prepare(&shape) => prepared?,
            verdict = self.given_up() => return Err(NotBooted { verdict, left: Left::Unnamed }),
        };
        let id = prepared.id.clone();
        self.inner.reaper.own(&id);
        let left = || Left::Sandbox(id.clone());
        let sandbox = tokio::select! {
            biased;
            assigned = self.backend.assign(prepared, &spec) => assigned.map_err(|error| {
                self.log_failure("assign", &error);
                let verdict = failed("the session's limits could not be put into force");
                NotBooted { verdict, left: left() }
            })?,
            verdict = self.given_up() => return Err(NotBooted { verdict, left: left() }),
        };
        metrics::histogram!("enclave_sandbox_boot_seconds", "backend" => self.backend.capabilities().name)
            .record(began.elapsed().as_secs_f64());
        Ok(sandbox)
    }

    /// Boots one. One that does not boot has run nothing of the session, so another one is tried.
    async fn prepare(&self, shape: &Shape) -> Result<Prepared, NotBooted> {
        let mut tries = BOOT_TRIES;
        loop {
            let error = match self.backend.prepare(shape).await {
                Ok(prepared) => return Ok(prepared),
                Err(error) => error,
            };
            self.log_failure("prepare", &error);
            tries -= 1;
            if tries > 0 && error.may_pass() {
                continue;
            }
            let left = error.left().map_or(Left::Nothing, |id| {
                self.inner.reaper.own(id);
                Left::Sandbox(id.clone())
            });
            return Err(NotBooted { verdict: failed("the sandbox could not be made ready"), left });
        }
    }

    /// Resolves when a boot has taken too long, by itself or for somebody who wants the session to end.
    async fn given_up(&self) -> Verdict {
        let config = &self.inner.config;
        let mut booting = Patience::new(config.boot_patience);
        let verdict = tokio::select! {
            () = booting.run_out() => return failed("the sandbox was not ready in time"),
            by = self.live.cancelled() => Verdict::Cancelled { by },
            () = self.inner.deadline.cancelled() => Verdict::Faulted(drained()),
        };
        // Most boots are done in a moment, and then there is a name to destroy the sandbox by.
        sleep(config.call_patience).await;
        verdict
    }

    /// Kills the sandbox while its driver waits for the store: at `until`, when somebody asks for the session's end, or at
    /// the server's deadline. Until it is dropped.
    fn guard(&self, id: &SandboxId, until: Instant) -> AbortOnDropHandle<()> {
        let (inner, backend, live) = (Arc::clone(&self.inner), Arc::clone(&self.backend), Arc::clone(&self.live));
        let id = id.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::select! {
                () = sleep_until(until) => {}
                _ = live.cancelled() => {}
                () = inner.deadline.cancelled() => {}
            }
            if let Err(error) = inner.kill(backend.as_ref(), &id).await {
                tracing::error!(sandbox = %id, error = &error as &dyn std::error::Error, "not killed");
            }
        }))
    }

    fn log_failure(&self, step: &'static str, error: &dyn std::error::Error) {
        let causes: Vec<_> = std::iter::successors(error.source(), |cause| cause.source()).collect();
        let cause = causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(": ");
        tracing::error!(session = %self.session.id, step, cause, "{error}");
    }
}

/// What counts a session under the ceiling.
type Held = Place;

/// What is to be reclaimed of a session.
enum Left {
    Nothing,
    Sandbox(SandboxId),
    /// Whatever a boot had made when it was given up; its name is not known.
    Unnamed,
}

impl Left {
    fn sandbox(&self) -> Option<&SandboxId> {
        match self {
            Self::Sandbox(id) => Some(id),
            Self::Nothing | Self::Unnamed => None,
        }
    }
}

/// The server's deadline has passed with something left; the next start goes on from there.
struct GaveUp;

/// A session that never got to run.
struct NotBooted {
    verdict: Verdict,
    left: Left,
}

fn failed(detail: &str) -> Verdict {
    Verdict::Faulted(view::fault(FaultCode::SandboxFailed, detail))
}

fn drained() -> wire::SessionFault {
    view::fault(FaultCode::ServerDrained, "the server shut down before the session could finish")
}
