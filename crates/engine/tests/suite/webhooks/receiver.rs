//! A receiver that behaves as ordered, and an engine whose clock stands still unless it is moved.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use backend::simulator::{Simulator, SimulatorConfig};
use engine::{
    Answer, Clock, Config, Courier, CreateError, DeliveryFilter, Engine, Ids, Letter, Parts, Pepper, Profile,
    Undelivered, Vault,
};
use model::access::{Caller, Subject};
use store::{AuditFilter, Store, sqlite::Sqlite};
use wire::{AuditEvent, DeliveryStatus, Phase, Role, Session, SessionId, Timestamp, WebhookDelivery};

use crate::suite::support::{PATIENCE, VAULT_KEY, request};

/// Timers go off at the next whole millisecond of a count that began before the test did.
pub(crate) const TICK: Duration = Duration::from_millis(1);

pub(crate) const URL: &str = "https://receiver.example.com/hook?a=b";

/// What a receiver does with a message.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    Answers(u16),
    Redirects(&'static str),
    Hangs,
    Fails(Undelivered),
}

type Orders = Box<dyn Fn(Timestamp, usize) -> Behaviour + Send>;

/// A message as it came.
#[derive(Clone, Debug)]
pub(crate) struct Came(Letter);

impl std::ops::Deref for Came {
    type Target = Letter;

    fn deref(&self) -> &Letter {
        &self.0
    }
}

impl Came {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.0.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str()).unwrap()
    }
}

pub(crate) struct Receiver {
    clock: Clock,
    orders: Mutex<Orders>,
    came: Mutex<Vec<Came>>,
}

impl Receiver {
    /// From now on; the order is given the time, and how many messages have come with this one.
    pub(crate) fn behave(&self, orders: impl Fn(Timestamp, usize) -> Behaviour + Send + 'static) {
        *self.orders.lock().unwrap() = Box::new(orders);
    }

    pub(crate) fn letters(&self) -> Vec<Came> {
        self.came.lock().unwrap().clone()
    }

    /// Waits until so many messages have come.
    pub(crate) async fn tried(&self, times: usize) {
        until("a message comes", async || self.letters().len() >= times).await;
    }
}

#[async_trait]
impl Courier for Receiver {
    async fn carry(&self, letter: &Letter) -> Result<Answer, Undelivered> {
        let behaviour = {
            let mut came = self.came.lock().unwrap();
            came.push(Came(letter.clone()));
            self.orders.lock().unwrap()(self.clock.now(), came.len())
        };
        match behaviour {
            Behaviour::Answers(status) => Ok(Answer { status, body: b"thanks\0".to_vec() }),
            Behaviour::Redirects(to) => Ok(Answer { status: 302, body: to.as_bytes().to_vec() }),
            Behaviour::Fails(error) => Err(error),
            Behaviour::Hangs => std::future::pending().await,
        }
    }
}

/// Waits in real time until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::task::yield_now().await;
    }
}

pub(crate) struct Place {
    pub(crate) engine: Engine,
    pub(crate) store: Sqlite,
    pub(crate) receiver: Arc<Receiver>,
    pub(crate) caller: Caller,
    simulator: Arc<Simulator>,
    clock: Clock,
    folder: tempfile::TempDir,
    still: Still,
}

/// Why time stands still for the engine, and not for its database.
#[derive(Clone)]
struct Still {
    /// A blocking task waits for its other end: tokio's clock does not move by itself as long as there is one.
    _held: mpsc::Sender<()>,
    /// Where the writers of databases live: they breathe, which takes time.
    outside: Arc<Outside>,
}

struct Outside(Option<tokio::runtime::Runtime>);

impl Drop for Outside {
    fn drop(&mut self) {
        // Not where it may wait: this is dropped by a test, which is async.
        self.0.take().unwrap().shutdown_background();
    }
}

impl Still {
    fn new() -> Self {
        let (held, end) = mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || end.recv());
        tokio::time::pause();
        let outside = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { _held: held, outside: Arc::new(Outside(Some(outside))) }
    }

    async fn store(&self, path: &Path) -> Sqlite {
        let path = path.to_owned();
        let opening = self.outside.0.as_ref().unwrap().spawn(async move { Sqlite::open(&path).await.unwrap() });
        opening.await.unwrap()
    }
}

impl Place {
    pub(crate) async fn new() -> Self {
        let still = Still::new();
        let folder = tempfile::tempdir().unwrap();
        let simulator = Arc::new(Simulator::new(SimulatorConfig::default()));
        Self::on(folder, simulator, Clock::manual(), still).await
    }

    async fn on(folder: tempfile::TempDir, simulator: Arc<Simulator>, clock: Clock, still: Still) -> Self {
        let receiver = Arc::new(Receiver {
            clock: clock.clone(),
            orders: Mutex::new(Box::new(|_, _| Behaviour::Answers(200))),
            came: Mutex::default(),
        });
        let path = folder.path().join("engine.db");
        let engine = start(still.store(&path).await, &simulator, &clock, &receiver).await;
        let store = still.store(&path).await;
        let caller = engine.authenticate(None).await.unwrap();
        Self { engine, store, receiver, caller, simulator, clock, folder, still }
    }

    /// What the next server finds when this one has died: its files, and no sandbox. Nobody is told by the old one.
    pub(crate) async fn after_a_crash(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for suffix in ["", "-wal"] {
            let name = format!("engine.db{suffix}");
            std::fs::copy(self.folder.path().join(&name), folder.path().join(&name)).unwrap();
        }
        self.simulator.crash();
        Self::on(folder, self.simulator.clone(), self.clock.clone(), self.still.clone()).await
    }

    /// Another server on the same database.
    pub(crate) async fn another(&self) -> Engine {
        let store = self.still.store(&self.database()).await;
        start(store, &self.simulator, &self.clock, &self.receiver).await
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("engine.db")
    }

    pub(crate) async fn until(&self, what: &str, is_so: impl AsyncFnMut() -> bool) {
        until(what, is_so).await;
    }

    /// Moves the clock.
    pub(crate) async fn advance(&self, by: Duration) {
        tokio::time::advance(by).await;
    }

    pub(crate) async fn of_org(&self, name: &str) -> Caller {
        let org = self.engine.ensure_org(name).await.unwrap();
        Caller { org, subject: Subject::Dev, role: Role::Owner, narrowed: None }
    }

    pub(crate) async fn try_start(&self, script: &str, url: &str) -> Result<Session, CreateError> {
        let mut asked = request(script);
        asked.request.webhook_url = Some(url.to_owned());
        self.engine.create(&self.caller, asked).await
    }

    /// A session that runs.
    pub(crate) async fn started(&self, script: &str) -> Session {
        let session = self.try_start(script, URL).await.unwrap();
        until("it runs", async || self.engine.session(&self.caller, session.id).await.unwrap().phase == Phase::Running)
            .await;
        session
    }

    /// A session that has ended, and of which nothing is left.
    pub(crate) async fn ended(&self, script: &str) -> Session {
        self.ended_for(&self.caller, script).await
    }

    pub(crate) async fn ended_for(&self, caller: &Caller, script: &str) -> Session {
        let mut asked = request(script);
        asked.request.webhook_url = Some(URL.to_owned());
        let session = self.engine.create(caller, asked).await.unwrap();
        until("it ends", async || self.engine.session(caller, session.id).await.unwrap().phase == Phase::TornDown)
            .await;
        session
    }

    /// The session's only delivery.
    pub(crate) async fn delivery(&self, session: SessionId) -> WebhookDelivery {
        let filter = DeliveryFilter { limit: 10, session: Some(session), ..DeliveryFilter::default() };
        let mut page = self.store.tenant(self.caller.org).deliveries(filter).await.unwrap();
        assert_eq!(page.items.len(), 1);
        page.items.remove(0)
    }

    /// Moves the clock from attempt to attempt until the delivery is over, at most so far.
    pub(crate) async fn follow(&self, session: SessionId, most: Duration) -> WebhookDelivery {
        let end = self.now().as_millis() + i64::try_from(most.as_millis()).unwrap();
        loop {
            let before = self.delivery(session).await;
            if before.status != DeliveryStatus::Pending {
                return before;
            }
            let due = before.next_attempt_at.unwrap().as_millis();
            assert!(due <= end, "it is still tried: {before:?}");
            let pause = u64::try_from(due - self.now().as_millis()).unwrap_or(0);
            self.advance(Duration::from_millis(pause) + TICK).await;
            until("the next attempt", async || self.delivery(session).await.attempts > before.attempts).await;
        }
    }

    /// The session's audit events.
    pub(crate) async fn trail(&self, session: SessionId) -> Vec<AuditEvent> {
        let filter = AuditFilter { session: Some(session), after_seq: 0, limit: 100 };
        self.store.tenant(self.caller.org).audit(filter).await.unwrap()
    }
}

async fn start(store: Sqlite, simulator: &Arc<Simulator>, clock: &Clock, receiver: &Arc<Receiver>) -> Engine {
    let parts = Parts {
        store: Arc::new(store),
        backends: vec![simulator.clone()],
        clock: clock.clone(),
        ids: Ids::from_os(),
        pepper: Pepper::new([7; 32]),
        vault: Vault::new(VAULT_KEY),
        courier: receiver.clone(),
    };
    // A clock that is moved by hours would have the reaper look once for each of its intervals.
    let reap_interval = Duration::from_hours(24 * 365);
    Engine::start(Config { profile: Profile::Dev, reap_interval, ..Config::default() }, parts).await.unwrap()
}
