//! Turns of interactive sessions, as callers see them: the bounded queue in front, waiting for one, interrupting one.
//!
//! A turn is not tied to whoever asked for it. It is accepted here, given to the session's driver in the order of its
//! number, and whoever waits watches what the driver published; when nobody does, it goes on all the same, and the store
//! has it.

mod stream;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use model::{access::Caller, interactive::Interactive, session::MAX_CODE_BYTES};
use store::{StoreError, TurnFilter, TurnRecord, UpdateError};
use tokio::sync::{Notify, mpsc, watch};
use wire::{CreateTurn, FieldError, InteractiveView, Phase, SessionId, Turn, TurnPage};

use crate::{Engine, Inner, ListError, ReadError, TurnError, hub::FrameStream, live::Live};

/// Turns that may wait behind the one that runs. More would wait for minutes; who has them can give them as one.
const MAX_WAITING: usize = 16;
/// Turns of one session: bounds its rows and its part of the audit log. At one a second it is a conversation of hours.
const MAX_TURNS: u32 = 10_000;

/// What callers share with the driver of an interactive session.
pub(crate) struct Turns {
    pub(crate) bounds: Interactive,
    /// One turn is accepted at a time, so that their numbers are their order.
    entrance: tokio::sync::Mutex<Entrance>,
    /// The driver's end of the queue, until it takes it.
    asked: Mutex<Option<mpsc::Receiver<Asked>>>,
    /// Those that wait or run.
    open: Mutex<BTreeMap<u32, Arc<OpenTurn>>>,
}

struct Entrance {
    next: u32,
    /// None when the session takes no more.
    queue: Option<mpsc::Sender<Asked>>,
}

/// A turn on its way to the driver.
pub(crate) struct Asked {
    pub(crate) turn: Turn,
    /// Who asked for it.
    pub(crate) actor: String,
    pub(crate) open: Arc<OpenTurn>,
}

/// A turn that has not ended.
pub(crate) struct OpenTurn {
    progress: watch::Sender<TurnProgress>,
    interrupted: AtomicBool,
    interrupts: Notify,
}

/// What is known of a turn.
#[derive(Clone, Debug)]
pub(crate) struct TurnProgress {
    pub(crate) turn: Arc<Turn>,
    /// Number of the frame that told of its start.
    pub(crate) began: Option<u64>,
    /// Number of the frame that told of its end.
    pub(crate) ended: Option<u64>,
}

impl OpenTurn {
    fn new(turn: Turn) -> Self {
        let progress = TurnProgress { turn: Arc::new(turn), began: None, ended: None };
        Self { progress: watch::Sender::new(progress), interrupted: AtomicBool::new(false), interrupts: Notify::new() }
    }

    /// Publishes that it runs since the frame of this number.
    pub(crate) fn begun(&self, turn: Turn, frame: u64) {
        self.progress.send_modify(|progress| (progress.turn, progress.began) = (Arc::new(turn), Some(frame)));
    }

    /// Whether somebody wants it to stop.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Acquire)
    }

    /// Resolves when somebody wants it to stop, each time.
    pub(crate) async fn interrupted(&self) {
        self.interrupts.notified().await;
    }

    fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Release);
        self.interrupts.notify_one();
    }
}

impl Turns {
    pub(crate) fn new(view: &InteractiveView) -> Self {
        let bounds = Interactive {
            idle_ttl_ms: view.idle_ttl_ms,
            max_lifetime_ms: view.max_lifetime_ms,
            turn_timeout_ms: view.turn_timeout_ms,
            turn_budget_ms: view.turn_budget_ms,
        };
        // One more: that which runs was in the queue until a moment ago.
        let (queue, asked) = mpsc::channel(MAX_WAITING + 1);
        Self {
            bounds,
            entrance: tokio::sync::Mutex::new(Entrance { next: 1, queue: Some(queue) }),
            asked: Mutex::new(Some(asked)),
            open: Mutex::default(),
        }
    }

    /// The driver's end of the queue; once.
    pub(crate) fn take_asked(&self) -> Option<mpsc::Receiver<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes no more turns; what is in the queue by then is all there is.
    pub(crate) async fn close(&self) {
        self.entrance.lock().await.queue = None;
    }

    /// Publishes the end of a turn, which `frame` told of.
    pub(crate) fn ended(&self, turn: Turn, frame: u64) {
        let open = self.open().remove(&turn.number);
        if let Some(open) = open {
            open.progress.send_modify(|progress| (progress.turn, progress.ended) = (Arc::new(turn), Some(frame)));
        }
    }

    /// Lets go of a turn whose end cannot be told here.
    pub(crate) fn forget(&self, number: u32) {
        self.open().remove(&number);
    }

    /// The same for all of them.
    pub(crate) fn forget_all(&self) {
        self.open().clear();
    }

    fn find(&self, number: u32) -> Option<Arc<OpenTurn>> {
        self.open().get(&number).map(Arc::clone)
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<OpenTurn>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

/// An accepted turn, and somebody who waits for it.
pub struct TurnWaiter {
    live: Arc<Live>,
    open: Arc<OpenTurn>,
}

impl TurnWaiter {
    /// The turn once it has ended, however long that takes.
    pub async fn ended(self) -> Result<Turn, TurnError> {
        let mut progress = self.open.progress.subscribe();
        // Only the publisher keeps it from being dropped: one whose end is never told is not waited for.
        drop(self.open);
        let ended = progress.wait_for(|progress| progress.ended.is_some()).await;
        ended.map(|progress| Turn::clone(&progress.turn)).map_err(|_| TurnError::Unavailable)
    }

    /// What becomes of the turn, frame by frame: its output, and last the turn itself.
    pub fn frames(self) -> FrameStream {
        stream::frames(Arc::clone(&self.live.hub), self.open.progress.subscribe())
    }
}

impl fmt::Debug for TurnWaiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnWaiter").finish_non_exhaustive()
    }
}

impl Engine {
    /// Takes a turn into the session's queue.
    pub async fn take_turn(
        &self,
        caller: &Caller,
        id: SessionId,
        asked: CreateTurn,
        mut faults: Vec<FieldError>,
    ) -> Result<TurnWaiter, TurnError> {
        let live = self.inner.registry.get(caller.org, id);
        if live.is_none() {
            self.session(caller, id).await?;
        }
        let turns = live.as_ref().and_then(|live| live.turns.clone());
        check_code(&asked.code, &mut faults);
        let timeout_ms = turns.as_ref().map_or(Ok(0), |turns| turns.bounds.turn_timeout(asked.timeout_ms));
        let timeout_ms = timeout_ms.unwrap_or_else(|fault| {
            faults.push(fault);
            0
        });
        if !faults.is_empty() {
            return Err(TurnError::Invalid(faults));
        }
        let Some(live) = live else { return Err(TurnError::WrongState("the session has ended")) };
        let Some(turns) = turns else {
            return Err(TurnError::WrongState("the session is not interactive: its execMode is oneshot"));
        };
        if self.is_draining() {
            return Err(TurnError::Draining);
        }
        // In a task of its own: a caller that goes away in the middle must not leave a record of a turn that nobody runs.
        let (inner, actor) = (Arc::clone(&self.inner), caller.subject.to_string());
        let entered = tokio::spawn(async move {
            let mut entrance = turns.entrance.lock().await;
            let turn = Turn::queued(id, entrance.next, asked.code, timeout_ms, inner.clock.now());
            let open = turns.enter(&mut entrance, &inner, &live, turn, actor).await?;
            drop(entrance);
            Ok(TurnWaiter { live, open })
        });
        entered.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }

    /// The turn, waiting for its end at most `wait`.
    pub async fn turn(&self, caller: &Caller, id: SessionId, number: u32, wait: Duration) -> Result<Turn, ReadError> {
        if let Some(open) = self.open_turn(caller, id, number) {
            let mut progress = open.progress.subscribe();
            drop(open);
            let _ = tokio::time::timeout(wait, progress.wait_for(|progress| progress.ended.is_some())).await;
            return Ok(Turn::clone(&progress.borrow().turn));
        }
        self.inner.store.tenant(caller.org).turn(id, number).await?.ok_or(ReadError::NotFound)
    }

    /// The session's turns, in their order.
    pub async fn turns(&self, caller: &Caller, filter: TurnFilter) -> Result<TurnPage, TurnListError> {
        self.session(caller, filter.session).await?;
        Ok(self.inner.store.tenant(caller.org).turns(filter).await.map_err(ListError::from)?)
    }

    /// Interrupts the turn if it has not ended, and gives it as it is now.
    pub async fn interrupt_turn(&self, caller: &Caller, id: SessionId, number: u32) -> Result<Turn, ReadError> {
        if let Some(open) = self.open_turn(caller, id, number) {
            open.interrupt();
            return Ok(Turn::clone(&open.progress.borrow().turn));
        }
        self.inner.store.tenant(caller.org).turn(id, number).await?.ok_or(ReadError::NotFound)
    }

    fn open_turn(&self, caller: &Caller, id: SessionId, number: u32) -> Option<Arc<OpenTurn>> {
        self.inner.registry.get(caller.org, id)?.turns.as_ref()?.find(number)
    }
}

impl Turns {
    /// Gives a turn its place. One that has to wait is recorded first; one that begins at once is recorded as it begins.
    async fn enter(
        &self,
        entrance: &mut Entrance,
        inner: &Inner,
        live: &Live,
        turn: Turn,
        actor: String,
    ) -> Result<Arc<OpenTurn>, TurnError> {
        let Some(queue) = &entrance.queue else { return Err(TurnError::WrongState("the session has ended")) };
        let before = self.open().len();
        if before > MAX_WAITING {
            return Err(TurnError::QueueFull { waiting: MAX_WAITING });
        }
        if turn.number > MAX_TURNS {
            return Err(TurnError::WrongState("the session has had as many turns as a session may have"));
        }
        let (org, phase) = {
            let progress = live.progress.borrow();
            (progress.session.org_id, progress.session.phase)
        };
        if before > 0 || phase != Phase::Running {
            let record = TurnRecord { turn: turn.clone(), drafts: Vec::new() };
            match inner.store.tenant(org).record_turn(record).await {
                Ok(_) => {}
                Err(UpdateError::NotLive(_)) => return Err(TurnError::WrongState("the session has ended")),
                Err(UpdateError::Store(error)) => return Err(error.into()),
            }
        }
        let (number, open) = (turn.number, Arc::new(OpenTurn::new(turn.clone())));
        self.open().insert(number, Arc::clone(&open));
        if queue.try_send(Asked { turn, actor, open: Arc::clone(&open) }).is_err() {
            self.forget(number);
            return Err(TurnError::WrongState("the session has ended"));
        }
        entrance.next = number + 1;
        Ok(open)
    }
}

fn check_code(code: &str, faults: &mut Vec<FieldError>) {
    if faults.iter().any(|fault| fault.field == "code") {
        return;
    }
    if code.trim().is_empty() {
        faults.push(FieldError::new("code", "must not be empty"));
    }
    if code.len() > MAX_CODE_BYTES {
        faults.push(FieldError::new("code", format!("must be at most {MAX_CODE_BYTES} bytes")));
    }
    if code.contains('\0') {
        faults.push(FieldError::new("code", "must not contain NUL"));
    }
}

/// Why turns could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum TurnListError {
    /// The session does not exist, or belongs to another org.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The page could not be given.
    #[error(transparent)]
    List(#[from] ListError),
}

impl From<StoreError> for TurnError {
    fn from(error: StoreError) -> Self {
        Self::Read(error.into())
    }
}
