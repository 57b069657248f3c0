//! What a case works with: the backend, and programs run in it through the same frames as the engine's.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use model::{Language, limits::Limits};
use protocol::{Exit, GuestFrame, GuestLimit, HostFrame, NotPut, Put, Start, Stream, Turned};
use tokio::time::{Instant, sleep};

use super::programs::Program;
use crate::{
    Observation, ObserveError, Prepared, SandboxId, SandboxLimit, SandboxSpec, SessionBackend, Shape, Termination,
    channel::{ChannelError, Receiver, Sender},
};

/// Between two looks for something that has to happen by a deadline.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why a case failed, in words.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Failed(pub(super) String);

impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: Error> From<E> for Failed {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            cause = inner.source();
        }
        Self(text)
    }
}

pub(super) type Checked<T = ()> = Result<T, Failed>;

/// Fails the case unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::conformance::context::Failed(format!($($text)+)));
        }
    };
}
pub(super) use ensure;

/// See the module.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) backend: Arc<dyn SessionBackend>,
    pub(super) shape: Arc<dyn Fn(Language) -> Shape + Send + Sync>,
    pub(super) language: Language,
    pub(super) patience: Duration,
    pub(super) numbered: Arc<AtomicU64>,
}

/// A program that was sent to its sandbox.
pub(super) struct Running {
    pub(super) id: SandboxId,
    pub(super) session_id: String,
    /// Dropping it closes the pipe, which ends the sandbox.
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    pub(super) seen: Seen,
    pub(super) context: Context,
}

/// What a program gets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Given<'a> {
    pub(super) args: &'a [&'a str],
    pub(super) env: &'a [(&'a str, &'a str)],
    pub(super) files: &'a [Put],
    pub(super) interactive: bool,
    /// Whether the runner stays when it has ended.
    pub(super) stays: bool,
    /// How long the sandbox may be over a limit.
    pub(super) grace: Duration,
}

/// What has come out of a sandbox.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) started: bool,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) result: Option<Vec<u8>>,
    pub(super) exceeded: Vec<GuestLimit>,
    pub(super) exit: Option<Exit>,
    pub(super) fault: Option<String>,
    pub(super) not_put: Option<NotPut>,
    pub(super) turned: Vec<Turned>,
}

/// A program whose sandbox is gone.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) session_id: String,
    pub(super) seen: Seen,
    pub(super) violation: Option<ChannelError>,
    pub(super) termination: Termination,
    pub(super) observation: Observation,
}

impl Context {
    /// The contract's limits, with the disk of the shape.
    pub(super) fn limits(&self) -> Limits {
        Limits { disk_bytes: (self.shape)(self.language).disk_bytes, ..Limits::default() }
    }

    pub(super) async fn prepare(&self, limits: &Limits) -> Checked<Prepared> {
        let shape = Shape { disk_bytes: limits.disk_bytes, ..(self.shape)(self.language) };
        Ok(self.backend.prepare(&shape).await?)
    }

    /// Starts a program under these limits.
    pub(super) async fn start(&self, program: Program, limits: Limits) -> Checked<Running> {
        self.start_with(program, limits, Given::default()).await
    }

    /// The same with all that can be given to a program.
    pub(super) async fn start_with(&self, program: Program, limits: Limits, given: Given<'_>) -> Checked<Running> {
        let prepared = self.prepare(&limits).await?;
        self.start_prepared(prepared, program, limits, given).await
    }

    /// The same in a sandbox that is there already.
    pub(super) async fn start_prepared(
        &self,
        prepared: Prepared,
        program: Program,
        limits: Limits,
        given: Given<'_>,
    ) -> Checked<Running> {
        let sandbox = self.backend.assign(prepared, &SandboxSpec { limits, gateway: None, grace: given.grace }).await?;
        let session_id = format!("ses_conformance_{}", self.numbered.fetch_add(1, Ordering::Relaxed));
        let (mut sender, receiver) = sandbox.channel.assign(&session_id);
        let start = Start {
            session_id: session_id.clone(),
            language: spoken(self.language),
            code: program.source(self.language).to_owned(),
            args: given.args.iter().map(|&text| text.to_owned()).collect(),
            env: given.env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            pids: limits.pids,
            output_bytes: limits.output_bytes,
            disk_bytes: limits.disk_bytes,
            entrypoint: None,
            interactive: given.interactive,
            stays: given.stays,
        };
        let puts = given.files.iter().cloned().map(HostFrame::Put);
        for frame in puts.chain([HostFrame::Start(Box::new(start))]) {
            match sender.send(&frame).await {
                Ok(()) => {}
                // A runner that has refused a file is gone; its last frame says so.
                Err(ChannelError::Io(_)) if !given.files.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
        }
        let context = self.clone();
        Ok(Running { id: sandbox.id, session_id, sender, receiver, seen: Seen::default(), context })
    }

    /// Runs a program to its end and removes its sandbox.
    pub(super) async fn run(&self, program: Program, limits: Limits) -> Checked<Ended> {
        self.start(program, limits).await?.finish().await
    }

    /// Removes a sandbox and looks whether it is gone.
    pub(super) async fn remove(&self, id: &SandboxId) -> Checked {
        let deadline = Instant::now() + self.patience;
        loop {
            let residue = self.backend.destroy(id).await?;
            if residue.is_none() {
                break;
            }
            ensure!(Instant::now() < deadline, "destroy keeps leaving {:?}", residue.0);
            sleep(LOOK_AGAIN).await;
        }
        ensure!(!self.backend.list().await?.contains(id), "{id} is listed after it was destroyed");
        Ok(())
    }

    /// Removes whatever is listed beyond `before` in two looks (what is seen once may be booting for somebody else), until
    /// two looks in a row find nothing: work that was under way when its caller went away may still come to light. Says
    /// what could not be removed in time.
    pub(super) async fn sweep(&self, before: &[SandboxId]) -> Checked<usize> {
        let deadline = Instant::now() + self.patience;
        let (mut removed, mut clean, mut seen) = (BTreeMap::new(), 0, Vec::new());
        loop {
            let left: Vec<_> = self.backend.list().await?.into_iter().filter(|id| !before.contains(id)).collect();
            clean = if left.is_empty() { clean + 1 } else { 0 };
            if clean == 2 {
                return Ok(removed.len());
            }
            let again: Vec<_> = left.iter().filter(|id| seen.contains(*id)).cloned().collect();
            seen = left;
            for id in again {
                let residue = self.backend.destroy(&id).await?;
                removed.insert(id, residue);
            }
            ensure!(Instant::now() < deadline, "cannot be removed: {removed:?}");
            sleep(LOOK_AGAIN).await;
        }
    }
}

impl Running {
    /// Reads one frame.
    pub(super) async fn next(&mut self) -> Checked {
        let frame = self.receiver.next().await?;
        let Some(frame) = frame else { return Err(Failed(format!("ended too early: {:?}", self.seen))) };
        self.seen.take(frame);
        Ok(())
    }

    /// Reads until the program has written this much to stdout.
    pub(super) async fn until_stdout(&mut self, text: &str) -> Checked {
        while !self.seen.stdout.ends_with(text.as_bytes()) {
            let Some(frame) = self.receiver.next().await? else {
                return Err(Failed(format!("ended before it wrote {text:?}: {:?}", self.seen)));
            };
            self.seen.take(frame);
        }
        Ok(())
    }

    /// Reads until nothing more is to be expected, as the engine does; then ends and removes the sandbox.
    pub(super) async fn finish(mut self) -> Checked<Ended> {
        let backend = Arc::clone(&self.context.backend);
        let violation = self.read(backend.as_ref()).await?;
        if self.seen.exit.is_none() {
            backend.kill(&self.id).await?;
        }
        let termination = backend.wait(&self.id).await?;
        let observation = backend.observe(&self.id).await?;
        self.context.remove(&self.id).await?;
        Ok(Ended { session_id: self.session_id, seen: self.seen, violation, termination, observation })
    }

    async fn read(&mut self, backend: &dyn SessionBackend) -> Checked<Option<ChannelError>> {
        let mut wait = backend.wait(&self.id);
        let mut ended = false;
        while self.seen.exit.is_none() && self.seen.exceeded.is_empty() {
            tokio::select! {
                frame = self.receiver.next() => match frame {
                    Ok(Some(frame)) => self.seen.take(frame),
                    Ok(None) | Err(ChannelError::Io(_)) => break,
                    Err(violation) => return Ok(Some(violation)),
                },
                termination = &mut wait, if !ended => {
                    termination?;
                    ended = true;
                }
            }
        }
        Ok(None)
    }
}

impl Seen {
    pub(super) fn take(&mut self, frame: GuestFrame) {
        match frame {
            GuestFrame::Started { .. } => self.started = true,
            GuestFrame::Output { stream: Stream::Stdout, data } => self.stdout.extend(data),
            GuestFrame::Output { stream: Stream::Stderr, data } => self.stderr.extend(data),
            GuestFrame::Result { json } => self.result = Some(json),
            GuestFrame::Exceeded { limit } => self.exceeded.push(limit),
            GuestFrame::Exited { exit, .. } => self.exit = Some(exit),
            GuestFrame::Fault { message } => self.fault = Some(message),
            GuestFrame::NotPut { reason, .. } => self.not_put = Some(reason),
            GuestFrame::Turned(turned) => self.turned.push(turned),
            // A case that asks for files or terminals takes the answers itself; the channel lets no hello through after the handshake.
            GuestFrame::File(_) | GuestFrame::Terminal(_) | GuestFrame::Hello { .. } => {}
        }
    }
}

impl Ended {
    /// The limit that ended it, however it came to light.
    pub(super) fn limit(&self) -> Option<SandboxLimit> {
        match (&self.termination, self.seen.exceeded.first()) {
            (Termination::Exceeded(limit), _) => Some(*limit),
            (_, Some(GuestLimit::Disk)) => Some(SandboxLimit::Disk),
            (_, Some(GuestLimit::Pids)) => Some(SandboxLimit::Pids),
            (_, Some(GuestLimit::Output) | None) => self.observation.exceeded,
        }
    }

    /// It ended by itself, with this code and within its limits.
    pub(super) fn exited(&self, code: u8) -> Checked {
        ensure!(self.violation.is_none() && self.seen.fault.is_none(), "a fault: {self:?}");
        ensure!(self.seen.not_put.is_none(), "a file that was not put: {self:?}");
        ensure!(self.seen.started, "an exit without a start: {self:?}");
        ensure!(self.seen.exit == Some(Exit::Code(code)), "not an exit with {code}: {self:?}");
        ensure!(self.termination == Termination::Exited, "not ended by itself: {self:?}");
        ensure!(self.limit().is_none(), "a limit that was kept counts as overrun: {self:?}");
        Ok(())
    }

    pub(super) fn result(&self) -> Checked<serde_json::Value> {
        Ok(serde_json::from_slice(self.seen.result.as_deref().unwrap_or(b"null"))?)
    }
}

/// The language as frames name it.
pub(super) fn spoken(language: Language) -> protocol::Language {
    match language {
        Language::Python => protocol::Language::Python,
        Language::Node => protocol::Language::Node,
    }
}

/// Whether the sandbox is unknown.
pub(super) fn is_gone<T>(answer: &Result<T, ObserveError>) -> bool {
    matches!(answer, Err(ObserveError::Gone(_)))
}

/// Polls a future so many times at most, and drops it right after: where it waits just then.
pub(super) async fn poll_times<F: Future>(future: F, times: u32) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polls = 0;
    poll_fn(|context| {
        if polls < times {
            polls += 1;
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
        }
        if polls < times { Poll::Pending } else { Poll::Ready(None) }
    })
    .await
}
