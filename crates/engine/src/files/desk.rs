//! The desk of one session: where calls on its files are handed in, and where their answers are called out.
//!
//! The driver opens it when the program runs, sends what is handed in, brings what the runner answers, and closes it at
//! the end. Answers are hostile: each must be to a call that waits, and of the kind and size that were asked for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use protocol::{
    HostFrame, OrderError,
    files::{FileCall, FileDone, FileOp, FileRefusal, FileReply, MAX_FILE_CALLS, MAX_FILE_HANDLES},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};

/// Frames between the callers and the driver.
pub(crate) const FRAMES: usize = 2;
/// How long one call may take inside. A chunk is half a megabyte, on a disk in memory.
const CALL_PATIENCE: Duration = Duration::from_secs(30);

/// Why a call was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// There is no program, or no longer one.
    #[error("the sandbox does not run")]
    NotRunning,
    /// The runner refused, or says so.
    #[error("refused: {:?}", .0.why)]
    Refused(FileRefusal),
    /// No answer in time.
    #[error("no answer from the sandbox")]
    Late,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Desk {
    state: Mutex<State>,
    calls: Arc<Semaphore>,
    handles: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    /// To the driver, while the sandbox takes calls.
    frames: Option<mpsc::Sender<HostFrame>>,
    /// Whether anybody but the driver may call.
    is_public: bool,
    waiting: HashMap<u32, Waiting>,
    next: u32,
}

/// A call that was sent, or is about to be. It stays until it is answered, whether or not its caller still waits.
#[derive(Debug)]
struct Waiting {
    /// None once it was sent away.
    caller: Option<oneshot::Sender<Result<FileDone, FileRefusal>>>,
    expected: Expected,
    _call: OwnedSemaphorePermit,
}

/// Which answer is one to the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Done,
    Opened,
    Read { most: u32 },
    Listed { most: u32 },
}

/// Whose call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Anybody,
    Driver,
}

/// A call whose answer has not come.
#[derive(Debug)]
pub(crate) struct Pending(oneshot::Receiver<Result<FileDone, FileRefusal>>);

/// The number of an open file. Closed when it is dropped, unless it was committed.
#[derive(Debug)]
pub(crate) struct Handle {
    desk: Arc<Desk>,
    pub(crate) number: u32,
    permit: Option<OwnedSemaphorePermit>,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            calls: Arc::new(Semaphore::new(MAX_FILE_CALLS)),
            handles: Arc::new(Semaphore::new(MAX_FILE_HANDLES)),
        }
    }

    /// Lets calls in.
    pub(crate) fn open(&self, frames: mpsc::Sender<HostFrame>) {
        let mut state = self.state();
        state.frames = Some(frames);
        state.is_public = true;
    }

    /// Sends everybody away but the driver. What was asked for is still answered, to nobody.
    pub(crate) fn end_public(&self) {
        let mut state = self.state();
        state.is_public = false;
        for waiting in state.waiting.values_mut() {
            waiting.caller = None;
        }
    }

    /// Lets no more in, and sends everybody away who waits.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.frames = None;
        state.is_public = false;
        state.waiting.clear();
    }

    /// Whether anybody but the driver may call.
    pub(crate) fn is_open(&self) -> bool {
        self.state().is_public
    }

    /// Brings an answer.
    pub(crate) fn answer(&self, reply: FileReply) -> Result<(), OrderError> {
        let mut state = self.state();
        if state.frames.is_none() {
            return Ok(());
        }
        let waiting = state.waiting.remove(&reply.id).ok_or(OrderError::Unasked)?;
        drop(state);
        if reply.outcome.as_ref().is_ok_and(|done| !waiting.expected.takes(done)) {
            return Err(OrderError::Unasked);
        }
        if let Some(caller) = waiting.caller {
            // Nobody waits any more for what was given up.
            let _ = caller.send(reply.outcome);
        }
        Ok(())
    }

    /// A number for a file to be opened. Waits until there are few enough.
    pub(crate) async fn handle(self: &Arc<Self>) -> Handle {
        let permit = Arc::clone(&self.handles).acquire_owned().await.ok();
        let mut state = self.state();
        state.next = state.next.wrapping_add(1);
        Handle { desk: Arc::clone(self), number: state.next, permit }
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn call(&self, op: FileOp) -> Result<FileDone, CallError> {
        self.begin(op).await?.done().await
    }

    /// The same for the driver, when nobody else may call any more.
    pub(crate) async fn call_for_driver(&self, op: FileOp) -> Result<FileDone, CallError> {
        self.hand_in(op, Who::Driver).await?.done().await
    }

    /// Asks. Calls are done in the order in which this was.
    pub(crate) async fn begin(&self, op: FileOp) -> Result<Pending, CallError> {
        self.hand_in(op, Who::Anybody).await
    }

    async fn hand_in(&self, op: FileOp, who: Who) -> Result<Pending, CallError> {
        let permit = Arc::clone(&self.calls).acquire_owned().await.map_err(|_| CallError::NotRunning)?;
        let (caller, answer) = oneshot::channel();
        let frames = self.state().frames.clone().ok_or(CallError::NotRunning)?;
        // Room in the queue first: a call is known from the moment at which it can no longer be taken back.
        let room = frames.reserve().await.map_err(|_| CallError::NotRunning)?;
        let id = {
            let mut state = self.state();
            if state.frames.is_none() || (who == Who::Anybody && !state.is_public) {
                return Err(CallError::NotRunning);
            }
            state.next = state.next.wrapping_add(1);
            let id = state.next;
            let expected = Expected::of(&op);
            state.waiting.insert(id, Waiting { caller: Some(caller), expected, _call: permit });
            id
        };
        room.send(HostFrame::File(FileCall { id, op }));
        Ok(Pending(answer))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// The answer.
    pub(crate) async fn done(self) -> Result<FileDone, CallError> {
        match timeout(CALL_PATIENCE, self.0).await {
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(refusal))) => Err(CallError::Refused(refusal)),
            Ok(Err(_)) => Err(CallError::NotRunning),
            Err(_) => Err(CallError::Late),
        }
    }
}

impl Handle {
    /// Asks for the file to be whole. Nothing is left to be closed then, whatever comes of it.
    pub(crate) async fn commit(mut self) -> Result<FileDone, CallError> {
        let pending = self.desk.begin(FileOp::Commit { handle: self.number }).await?;
        // What was asked for happens, whether or not somebody waits for it.
        let permit = self.permit.take();
        let done = pending.done().await;
        drop(permit);
        done
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let (desk, handle) = (Arc::clone(&self.desk), self.number);
        // Outside of a runtime there is nothing that could still run.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            // A sandbox that does not answer ends with everything in it.
            let _ = desk.call_for_driver(FileOp::Close { handle }).await;
            drop(permit);
        });
    }
}

impl Expected {
    fn of(op: &FileOp) -> Self {
        match op {
            FileOp::Open { .. } => Self::Opened,
            FileOp::Read { bytes, .. } => Self::Read { most: *bytes },
            FileOp::List { limit, .. } => Self::Listed { most: *limit },
            FileOp::Create { .. }
            | FileOp::Write { .. }
            | FileOp::Commit { .. }
            | FileOp::Close { .. }
            | FileOp::Remove { .. } => Self::Done,
        }
    }

    fn takes(self, done: &FileDone) -> bool {
        match (self, done) {
            (Self::Done, FileDone::Done) | (Self::Opened, FileDone::Opened(_)) => true,
            (Self::Read { most }, FileDone::Read(data)) => data.len() <= most as usize,
            (Self::Listed { most }, FileDone::Listed { entries, more }) => {
                let rising = entries.windows(2).all(|two| two[1].path.is_behind(&two[0].path));
                entries.len() <= most as usize && rising && (!more || !entries.is_empty())
            }
            (
                Self::Done | Self::Opened | Self::Read { .. } | Self::Listed { .. },
                FileDone::Done | FileDone::Opened(_) | FileDone::Read(_) | FileDone::Listed { .. },
            ) => false,
        }
    }
}
