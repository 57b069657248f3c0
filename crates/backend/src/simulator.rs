//! The simulator: a backend that never executes code.
//!
//! It models what could be observed of a program. A source that carries a script, in comments like `# sim: stdout hello`,
//! is modelled by that script alone. In any other source common calls are recognised; lines that are not understood are
//! counted and said on stderr, and otherwise pass as if they did nothing, so that such a program exits with 0 unless
//! something recognised ends it differently. docs/simulator.md has the language and the calls.
//!
//! Everything around the program is real: the protocol, the pipe and its back pressure, limits and who reports them, usage,
//! `list` and `destroy`. The engine cannot tell the difference, which makes this the backend for tests and for load. Time
//! is tokio's, so a paused runtime is a manual clock, and nothing takes time that does not model something: the same seed
//! and the same program give the same frames and the same usage. [`FailurePlan`] makes any step fail, hang or leave
//! something behind.
//!
//! `enclave serve --backend simulator` and tests construct it; nothing ever falls back to it.

mod clerk;
mod failures;
mod files;
mod gateway;
mod inside;
mod meter;
mod outbox;
mod program;
mod recognise;
mod runner;
mod sandbox;
mod script;
mod terminals;
mod turns;

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use model::{Enforcement, ExecMode, Isolation, Language};

pub use failures::{FailurePlan, Step};

use self::{failures::Met, gateway::ModelGateway, meter::Meter, outbox::Outbox, runner::Runner};
use crate::{
    AssignError, Capabilities, Channel, DestroyError, Gateway, GatewayError, Observation, ObserveError, PrepareError,
    Prepared, Residue, Sandbox, SandboxId, SandboxLimit, SandboxSpec, SessionBackend, Shape, Termination,
};

/// What the pipe to a runner holds, each way: as much as a pipe of the kernel.
const PIPE_BYTES: usize = 64 * 1024;
/// How long a runner may take to say hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);
const IMAGE: &str = "default";

/// How a simulator behaves.
#[derive(Clone, Debug)]
pub struct SimulatorConfig {
    /// Decides the names of sandboxes and the small differences in usage between programs. A server takes a random one, so
    /// that names are not used twice.
    pub seed: u64,
    /// Sandboxes that may exist at once; one more cannot be prepared.
    pub max_sandboxes: usize,
    /// How long a sandbox takes to boot.
    pub boot: Duration,
    /// Failures to order.
    pub failures: FailurePlan,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self { seed: 0, max_sandboxes: 100_000, boot: Duration::ZERO, failures: FailurePlan::default() }
    }
}

/// The backend. See the module.
#[derive(Debug)]
pub struct Simulator {
    config: SimulatorConfig,
    capabilities: Capabilities,
    sandboxes: Mutex<BTreeMap<SandboxId, Arc<sandbox::Sandbox>>>,
    named: AtomicU64,
}

impl Default for Simulator {
    fn default() -> Self {
        Self::new(SimulatorConfig::default())
    }
}

impl Simulator {
    /// A simulator without sandboxes.
    pub fn new(config: SimulatorConfig) -> Self {
        Self { config, capabilities: capabilities(), sandboxes: Mutex::default(), named: AtomicU64::new(0) }
    }

    /// The plan that it was made with.
    pub fn failures(&self) -> &FailurePlan {
        &self.config.failures
    }

    /// What is left when the server is killed and started again: every runner has ended with its pipe, and every sandbox
    /// is still listed.
    pub fn crash(&self) {
        for sandbox in self.sandboxes().values() {
            sandbox.kill(Termination::Exited);
        }
    }

    fn sandboxes(&self) -> MutexGuard<'_, BTreeMap<SandboxId, Arc<sandbox::Sandbox>>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &SandboxId) -> Result<Arc<sandbox::Sandbox>, ObserveError> {
        self.sandboxes().get(id).cloned().ok_or_else(|| ObserveError::Gone(id.clone()))
    }

    fn enter(&self, shape: &Shape) -> Result<(SandboxId, Arc<sandbox::Sandbox>), PrepareError> {
        let number = self.named.fetch_add(1, Ordering::Relaxed);
        let halves = [2 * number, 2 * number + 1].map(|half| u128::from(mix(self.config.seed, half)));
        let id = SandboxId::from_bits(halves[0] << 64 | halves[1]);
        let sandbox = Arc::new(sandbox::Sandbox::new(Meter::boot(shape.language, shape.disk_bytes)));
        let mut sandboxes = self.sandboxes();
        if sandboxes.len() >= self.config.max_sandboxes {
            let source = io::Error::other(format!("there are {} already", sandboxes.len()));
            return Err(PrepareError::Setup { step: "enter sandbox", source });
        }
        sandboxes.insert(id.clone(), Arc::clone(&sandbox));
        Ok((id, sandbox))
    }

    async fn boot(&self, sandbox: &Arc<sandbox::Sandbox>, language: Language) -> Result<Channel, PrepareError> {
        work(self.config.boot).await;
        let (from_runner, to_host) = tokio::io::duplex(PIPE_BYTES);
        let (to_runner, from_host) = tokio::io::duplex(PIPE_BYTES);
        let met = self.config.failures.meet(Step::Handshake);
        let frames_left = if met == Met::Failure { Some(0) } else { self.config.failures.dies_after() };
        let outbox = Outbox::new(to_host, frames_left);
        let seed = self.config.seed;
        let mut runner = Runner { sandbox: Arc::clone(sandbox), language, from_host, outbox, seed };
        let started = if met == Met::Hang {
            sandbox.start(runner.keep_silent())
        } else if runner.greet().await.is_ok() {
            sandbox.start(runner.run())
        } else {
            sandbox.end(Termination::Exited);
            drop(runner);
            Ok(())
        };
        started.map_err(|sandbox::Ended| PrepareError::Died("it was destroyed".to_owned()))?;
        work(Duration::ZERO).await;
        Channel::handshake(from_runner, to_runner, HELLO_PATIENCE).await.map_err(PrepareError::Handshake)
    }
}

#[async_trait]
impl SessionBackend for Simulator {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn prepare(&self, shape: &Shape) -> Result<Prepared, PrepareError> {
        if shape.image != IMAGE {
            return Err(PrepareError::NoImage(shape.image.clone()));
        }
        let failed = |source| PrepareError::Setup { step: "boot sandbox", source };
        self.config.failures.pass(Step::Prepare).await.map_err(failed)?;
        let (id, sandbox) = self.enter(shape)?;
        match self.boot(&sandbox, shape.language).await {
            Ok(channel) => Ok(Prepared { id, channel, shape: shape.clone() }),
            Err(error) => {
                sandbox.kill(Termination::Killed);
                if self.config.failures.leaves_residue() {
                    return Err(error.leaving(id));
                }
                self.sandboxes().remove(&id);
                Err(error)
            }
        }
    }

    async fn assign(&self, prepared: Prepared, spec: &SandboxSpec) -> Result<Sandbox, AssignError> {
        let Prepared { id, channel, shape } = prepared;
        let failed = |source| AssignError::Limit { step: "modelled limits", source };
        self.config.failures.pass(Step::Assign).await.map_err(failed)?;
        let (gateway, end) = match (&spec.gateway, shape.egress) {
            (Some(spec), true) => {
                let (gateway, end) = Gateway::pair();
                (Some(gateway), Some(ModelGateway::new(spec.clone(), end)))
            }
            (None, false) => (None, None),
            (Some(_), false) | (None, true) => return Err(GatewayError::Mismatch.into()),
        };
        let assigned = self.find(&id).is_ok_and(|sandbox| {
            sandbox.limit(&spec.limits, spec.grace).is_ok() && end.is_none_or(|end| sandbox.set_gateway(end).is_ok())
        });
        work(Duration::ZERO).await;
        if assigned { Ok(Sandbox { id, channel, gateway }) } else { Err(AssignError::Gone(id)) }
    }

    async fn wait(&self, id: &SandboxId) -> Result<Termination, ObserveError> {
        self.config.failures.pass(Step::Wait).await.map_err(|source| unreachable("wait", source))?;
        let sandbox = self.find(id)?;
        Ok(sandbox.wait().await)
    }

    async fn overrun(&self, id: &SandboxId) -> Result<SandboxLimit, ObserveError> {
        let sandbox = self.find(id)?;
        Ok(sandbox.overrun().await)
    }

    async fn observe(&self, id: &SandboxId) -> Result<Observation, ObserveError> {
        self.config.failures.pass(Step::Observe).await.map_err(|source| unreachable("observe", source))?;
        Ok(self.find(id)?.observe())
    }

    async fn kill(&self, id: &SandboxId) -> Result<(), ObserveError> {
        self.config.failures.pass(Step::Kill).await.map_err(|source| unreachable("kill", source))?;
        self.find(id)?.kill(Termination::Killed);
        Ok(())
    }

    async fn destroy(&self, id: &SandboxId) -> Result<Residue, DestroyError> {
        let failed = |source| DestroyError::Failed { step: "destroy", source };
        self.config.failures.pass(Step::Destroy).await.map_err(failed)?;
        let Ok(sandbox) = self.find(id) else { return Ok(Residue::none()) };
        sandbox.kill(Termination::Killed);
        if self.config.failures.leaves_residue() {
            return Ok(Residue(vec![format!("sandbox {id}, as ordered")]));
        }
        self.sandboxes().remove(id);
        Ok(Residue::none())
    }

    async fn list(&self) -> Result<Vec<SandboxId>, ObserveError> {
        self.config.failures.pass(Step::List).await.map_err(|source| unreachable("list", source))?;
        Ok(self.sandboxes().keys().cloned().collect())
    }
}

fn unreachable(step: &'static str, source: io::Error) -> ObserveError {
    ObserveError::Unreachable { step, source }
}

/// What takes time in a real backend. Even when it takes none, others run meanwhile, and the caller may go away.
async fn work(time: Duration) {
    if time.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(time).await;
    }
}

/// FNV-1a: the same everywhere and for ever.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |digest, byte| (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// splitmix64: enough to spread names.
fn mix(seed: u64, number: u64) -> u64 {
    let mut bits = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn capabilities() -> Capabilities {
    let modelled = |what: &str| format!("modelled: {what}");
    Capabilities {
        name: "simulator",
        isolation: Isolation::Simulated,
        executes: false,
        languages: vec![Language::Python, Language::Node],
        exec_modes: vec![ExecMode::Oneshot, ExecMode::Interactive],
        images: vec![IMAGE.to_owned()],
        enforcement: Enforcement {
            kernel: modelled("nothing is executed"),
            egress: modelled("nothing is connected"),
            cpu: modelled("CPU time passes at the rate, and ends the program at its limit"),
            memory: modelled("what the program is said to take is counted"),
            pids: modelled("what the program is said to start is counted"),
            disk: modelled("what the program is said to write is counted"),
            wall_clock: modelled("the server's own timer, for a program that does not run"),
        },
        egress_allowlist: true,
        egress_enforcement: Some(modelled("the gateway's decisions are made, and nothing is connected")),
    }
}
