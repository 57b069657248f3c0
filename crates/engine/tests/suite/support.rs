//! An engine over the simulator and a real store, both of which fail as ordered.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use backend::{
    SandboxId, SessionBackend,
    simulator::{Simulator, SimulatorConfig},
};
use engine::{
    Answer, Clock, Config, Courier, CreateRequest, Engine, Ids, Letter, Parts, Pepper, Profile, Undelivered, Vault,
};
use futures::StreamExt;
use model::access::Caller;
use store::{Store, sqlite::Sqlite};
use wire::{AuditType, CreateSession, FrameKind, Phase, Session, SessionResult};

use super::{
    backend::Wrapped,
    store::{Faulty, Orders},
};

pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Under which secrets are sealed.
pub(crate) const VAULT_KEY: [u8; 32] = [5; 32];

pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) simulator: Arc<Simulator>,
    /// What the engine sees of the simulator.
    pub(crate) backend: Arc<Wrapped>,
    pub(crate) store: Sqlite,
    /// What becomes of the engine's writes.
    pub(crate) orders: Arc<Orders>,
    pub(crate) caller: Caller,
    folder: tempfile::TempDir,
}

pub(crate) fn quick() -> Config {
    Config { reap_interval: Duration::from_millis(50), ..Config::default() }
}

pub(crate) async fn world() -> World {
    world_with(quick()).await
}

pub(crate) async fn world_with(config: Config) -> World {
    world_on(config, |simulator| Wrapped::new(simulator, "simulator")).await
}

pub(crate) async fn world_on(config: Config, wrap: impl FnOnce(Arc<Simulator>) -> Wrapped) -> World {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("engine.db")).await.unwrap();
    world_of(config, folder, store, Clock::System, wrap).await
}

async fn world_of(
    config: Config,
    folder: tempfile::TempDir,
    store: Sqlite,
    clock: Clock,
    wrap: impl FnOnce(Arc<Simulator>) -> Wrapped,
) -> World {
    let simulator = Arc::new(Simulator::new(SimulatorConfig::default()));
    let backend = Arc::new(wrap(Arc::clone(&simulator)));
    let orders = Arc::new(Orders::default());
    let faulty = Faulty { store: Arc::new(store.clone()), orders: Arc::clone(&orders) };
    let vault = Vault::new(VAULT_KEY);
    let engine = start_with(config, Arc::new(faulty), backend.clone(), vault, clock).await;
    let caller = engine.authenticate(None).await.unwrap();
    World { engine, simulator, backend, store, orders, caller, folder }
}

async fn start(config: Config, store: Arc<dyn Store>, backend: Arc<dyn SessionBackend>) -> Engine {
    start_with(config, store, backend, Vault::new(VAULT_KEY), Clock::System).await
}

async fn start_with(
    config: Config,
    store: Arc<dyn Store>,
    backend: Arc<dyn SessionBackend>,
    vault: Vault,
    clock: Clock,
) -> Engine {
    let parts = Parts {
        store,
        backends: vec![backend],
        clock,
        ids: Ids::from_os(),
        pepper: Pepper::new([7; 32]),
        vault,
        courier: Arc::new(Absent),
    };
    Engine::start(Config { profile: Profile::Dev, ..config }, parts).await.unwrap()
}

/// A courier that finds nobody.
pub(crate) struct Absent;

#[async_trait::async_trait]
impl Courier for Absent {
    async fn carry(&self, _letter: &Letter) -> Result<Answer, Undelivered> {
        Err(Undelivered::Unresolved("there is nobody".to_owned()))
    }
}

/// A world whose time stands still until it is moved, to the millisecond. Its store lives in a runtime of its own, where
/// time goes on.
pub(crate) struct Still {
    pub(crate) world: World,
    /// Time moves by itself only where nothing is being done; until this goes, something is.
    _held: std::sync::mpsc::Sender<()>,
}

/// In a runtime that was started with its time paused: whole milliseconds from its beginning are what timers count in.
pub(crate) async fn still(wrap: impl FnOnce(Arc<Simulator>) -> Wrapped) -> Still {
    let (held, until) = std::sync::mpsc::channel();
    tokio::task::spawn_blocking(move || until.recv());
    let outside = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine.db");
    let store = outside.spawn(async move { Sqlite::open(&path).await.unwrap() }).await.unwrap();
    // A runtime is not dropped inside another; the process ends with the test.
    std::mem::forget(outside);
    let world = world_of(Config::default(), folder, store, Clock::manual(), wrap).await;
    Still { world, _held: held }
}

impl Still {
    /// Moves time, and lets what is due by then be done.
    pub(crate) async fn pass(&self, ms: u64) {
        tokio::time::advance(Duration::from_millis(ms)).await;
        // Each turn of the scheduler looks at the timers, and runs whom they woke.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
}

pub(crate) fn request(script: &str) -> CreateRequest {
    let request = CreateSession { code: Some(script.to_owned()), ..CreateSession::default() };
    CreateRequest { request, shape_faults: Vec::new(), idempotency: None, uploads: None }
}

/// Waits until it is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl World {
    pub(crate) async fn start(&self, script: &str) -> Session {
        self.engine.create(&self.caller, request(script)).await.unwrap()
    }

    pub(crate) async fn start_for(&self, script: &str, wall_clock: Duration) -> Session {
        let mut asked = request(script);
        asked.request.limits.wall_clock_ms = Some(u64::try_from(wall_clock.as_millis()).unwrap());
        self.engine.create(&self.caller, asked).await.unwrap()
    }

    /// Runs to the end: the session when it is torn down, its result, and its audit trail.
    pub(crate) async fn run(&self, script: &str) -> (Session, SessionResult, Vec<AuditType>) {
        let session = self.start(script).await;
        self.end_of(&session).await
    }

    pub(crate) async fn end_of(&self, session: &Session) -> (Session, SessionResult, Vec<AuditType>) {
        let frames = self.frames_of(session).await;
        assert_eq!(frames.last().unwrap().kind, FrameKind::End);
        let numbers: Vec<u64> = frames.iter().map(|frame| frame.seq).collect();
        assert_eq!(numbers, (1..=u64::try_from(frames.len()).unwrap()).collect::<Vec<_>>());
        let result = self.engine.result(&self.caller, session.id, Duration::ZERO).await.unwrap();
        let trail = self.engine.audit(&self.caller, session.id, 0, 100).await.unwrap();
        let session = self.now(session).await;
        assert_eq!(session.phase, Phase::TornDown);
        assert_eq!(session.outcome, Some(result.outcome));
        store::verify(&self.store, session.org_id).await.unwrap();
        (session, result, trail.items.iter().map(|event| event.kind).collect())
    }

    /// Its whole stream, once that has ended.
    pub(crate) async fn frames_of(&self, session: &Session) -> Vec<engine::Frame> {
        let frames = self.engine.stream(&self.caller, session.id, 0).await.unwrap();
        tokio::time::timeout(PATIENCE, frames.collect()).await.expect("the stream ends")
    }

    /// The session as it is told now.
    pub(crate) async fn now(&self, session: &Session) -> Session {
        self.engine.session(&self.caller, session.id).await.unwrap()
    }

    /// Waits until the session runs.
    pub(crate) async fn running(&self, session: &Session) {
        let mut frames = self.engine.stream(&self.caller, session.id, 0).await.unwrap();
        let running = async {
            while let Some(frame) = frames.next().await {
                if frame.kind == FrameKind::Phase && frame.data.contains("running") {
                    return;
                }
            }
            panic!("it ended before it ran");
        };
        tokio::time::timeout(PATIENCE, running).await.unwrap();
    }

    /// What stands, past whatever is ordered for the engine.
    pub(crate) async fn standing(&self) -> Vec<SandboxId> {
        self.simulator.list().await.unwrap()
    }

    /// The only sandbox that stands, once it does.
    pub(crate) async fn sandbox(&self) -> SandboxId {
        eventually("a sandbox stands", async || self.standing().await.len() == 1).await;
        self.standing().await.remove(0)
    }

    /// The sandbox that is recorded for a session.
    pub(crate) async fn recorded_sandbox(&self, session: &Session) -> SandboxId {
        let unfinished = self.store.system().unfinished().await.unwrap();
        let found = unfinished.iter().find(|unfinished| unfinished.session.id == session.id).unwrap();
        found.sandbox.as_ref().unwrap().parse().unwrap()
    }

    /// The directory of the database's files.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Another server on the same rows, with another key for secrets.
    pub(crate) async fn restarted_with_vault(&self, config: Config, vault: Vault) -> Engine {
        start_with(config, Arc::new(self.store.clone()), self.backend.clone(), vault, Clock::System).await
    }

    /// A server that starts after this one was killed in the middle, as after kill -9: the rows and the sandboxes stand,
    /// and nobody owns them.
    pub(crate) async fn restarted(&self, config: Config, backend: Arc<Wrapped>) -> Engine {
        let path = self.folder.path().join("copy.db");
        for suffix in ["", "-wal"] {
            let original = self.folder.path().join(format!("engine.db{suffix}"));
            // A store that was closed has written its log back.
            if original.exists() {
                std::fs::copy(original, format!("{}{suffix}", path.display())).unwrap();
            }
        }
        self.simulator.crash();
        start(config, Arc::new(Sqlite::open(&path).await.unwrap()), backend).await
    }
}
