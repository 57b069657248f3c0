//! Supervising: from the start of the program until its end is decided, once.
//!
//! Several things can end a session at about the same time. The first that is seen decides, with one exception: what the
//! host's accounting says about a limit outweighs what the runner says about an exit, because a program that ran into a
//! limit often exits by itself a moment later.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use backend::{
    Sandbox, SandboxId, SandboxLimit, Termination,
    channel::{ChannelError, Receiver, Sender},
    patience::Patience,
};
use futures::future::OptionFuture;
use model::{
    audit::Draft,
    phase::{Event, State, Verdict},
};
use protocol::{GuestFrame, GuestLimit, HostFrame, NotPut, Stream};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use wire::{Denial, JsonText, KillReason, StreamFrame, Usage};

use crate::{
    artifacts::collect::Kept,
    driver::{
        Driver,
        artifacts::Pipe,
        egress::{Egress, End, Heard},
        inputs::{Inputs, SendError},
        record::{Change, Unrecorded},
        turns::Conversation,
    },
    files::FRAMES,
    output::{Budget, Output, Tails},
};

/// How long the runner may take from the request to the confirmation of a start.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// Arrays and objects inside one another in a result. Parsers of clients stop at 128 and less, and a result in a
/// response or a frame is some levels further in.
pub(super) const MAX_RESULT_DEPTH: usize = 100;
/// How long output may still come out of a pipe whose sandbox has ended.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);

/// What a session's run came to.
pub(super) struct Run {
    pub(super) verdict: Verdict,
    pub(super) usage: Usage,
    /// The last JSON given to `enclave.result`.
    pub(super) given: Option<JsonText>,
    pub(super) tails: Tails,
    /// What the session's policy refused.
    pub(super) denials: Vec<Denial>,
    /// Of its files.
    pub(super) kept: Kept,
}

impl Run {
    /// A session that had no sandbox to run in.
    pub(super) fn never(verdict: Verdict) -> Self {
        Self {
            verdict,
            usage: Usage::default(),
            given: None,
            tails: Tails::default(),
            denials: Vec::new(),
            kept: Kept::default(),
        }
    }

    /// Adds what was heard from a gateway before the workload's.
    pub(super) fn add(&mut self, heard: Heard) {
        self.usage.egress_bytes = self.usage.egress_bytes.saturating_add(heard.bytes);
        self.denials.splice(0..0, heard.denials);
    }
}

/// Why the waiting ended.
pub(super) enum Decided {
    /// The runner reported the workload's exit.
    Exited(i32),
    /// One of the backend's own limits.
    Exceeded(SandboxLimit),
    /// A limit that the driver watches, or that the runner reported.
    Quota(KillReason),
    /// A file could not be put into the working directory.
    NotPut,
    Cancelled(String),
    Drained,
    /// The runner broke the protocol.
    Violation(ChannelError),
    /// The gateway is gone, and the sandbox is not.
    CutOff,
    /// The sandbox or the pipe is gone, and nothing said why.
    Lost(&'static str),
}

/// What goes into the sandbox: the files first, then the program.
struct Handover<'a> {
    start: HostFrame,
    inputs: &'a mut Inputs,
    /// The audit events of the files.
    written: &'a [Draft],
    /// What goes in behind the program, and the way to that.
    frames: mpsc::Sender<HostFrame>,
    outgoing: &'a mut mpsc::Receiver<HostFrame>,
}

/// What has come out of the sandbox so far.
pub(super) struct Collected {
    pub(super) output: Output,
    result: Option<Vec<u8>>,
    /// Whether the program is in the sandbox's hands.
    handed_over: Arc<AtomicBool>,
    /// When the runner confirmed that it runs.
    started: Option<Instant>,
    /// The turns of an interactive session.
    pub(super) talk: Option<Conversation>,
}

impl Driver {
    pub(super) async fn supervise(&mut self, sandbox: Sandbox, mut inputs: Inputs) -> Run {
        let Sandbox { id, channel, gateway } = sandbox;
        let start = self.start_frame(&inputs);
        let mut egress = Egress::of(self, gateway);
        let (mut sender, mut receiver) = channel.assign(&self.session.id.to_string());
        let mut collected = Collected {
            output: Output::new(self.spec.limits.output_bytes),
            result: None,
            handed_over: Arc::default(),
            started: None,
            talk: self.talk.take(),
        };

        let written = inputs.drafts(self.session.id, self.inner.clock.now());
        let (frames, mut outgoing) = mpsc::channel(FRAMES);
        let handover = Handover { start, inputs: &mut inputs, written: &written, frames, outgoing: &mut outgoing };
        let decided = self.watch(&id, handover, &mut sender, &mut receiver, &mut egress, &mut collected).await;
        let ended = Instant::now();
        let handed_over = collected.handed_over.load(Ordering::Acquire);
        self.live.desk.end_public();
        self.live.board.close();
        let mut kept = self.nothing_kept();
        let mut observation = None;
        if self.wants_artifacts() && collected.started.is_some() {
            // What collecting costs is not the program's doing.
            observation = Some(self.observed(&id).await);
            let pipe = Pipe { sender: &mut sender, receiver: &mut receiver, outgoing: &mut outgoing };
            kept = self.collect(&decided, pipe, &mut collected).await;
        }
        self.live.desk.close();
        // With the sandbox the gateway ends: what it still has to tell comes before the end of the session.
        if !matches!(decided, Decided::Exited(_)) || egress.is_open() {
            if let Err(error) = self.inner.kill(self.backend.as_ref(), &id).await {
                self.log_failure("kill", &error);
            }
            if !matches!(decided, Decided::Exited(_) | Decided::Violation(_)) {
                self.drain(&id, &written, &mut receiver, &mut collected).await;
            }
        }
        if self.state == State::Pending {
            // What uses up a limit runs, whether or not the runner lived to say so.
            let overran = handed_over && matches!(decided, Decided::Exceeded(_) | Decided::Quota(_));
            let ran = collected.started.is_some() || overran;
            // If it cannot be recorded, neither can the end, which is the one to tell.
            let _ = if ran { self.started(&id, &written).await } else { self.provisioned(&id).await };
        }
        self.talk = collected.talk.take();
        if let Some(talk) = &mut self.talk {
            talk.over(ended);
        }
        for (stream, chunk) in collected.output.finish() {
            self.live.hub.publish(&frame(stream, chunk));
        }

        let observation = match observation {
            Some(observation) => observation,
            None => self.observed(&id).await,
        };
        let heard = egress.close(self.session.id).await;
        let given = collected.result.take().and_then(|json| self.parse_result(&json, &mut collected));
        let wall = collected.started.map_or(Duration::ZERO, |started| ended.saturating_duration_since(started));
        Run {
            verdict: self.verdict(decided, observation.exceeded),
            usage: Usage {
                cpu_ms: observation.usage.cpu_ms,
                memory_peak_bytes: observation.usage.memory_peak_bytes,
                wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
                egress_bytes: heard.bytes,
            },
            denials: heard.denials,
            given,
            tails: collected.output.tails(),
            kept,
        }
    }

    /// Starts the program and waits for the first thing that decides its end.
    async fn watch(
        &mut self,
        id: &SandboxId,
        Handover { start, inputs, written, frames, outgoing }: Handover<'_>,
        sender: &mut Sender,
        receiver: &mut Receiver,
        egress: &mut Egress,
        collected: &mut Collected,
    ) -> Decided {
        let (backend, live) = (Arc::clone(&self.backend), Arc::clone(&self.live));
        let deadline = self.inner.deadline.clone();
        let patience = START_PATIENCE + inputs.patience();
        let draining = self.inner.draining.clone();
        let mut orders = collected.talk.as_mut().map(Conversation::connect);
        let handed_over = Arc::clone(&collected.handed_over);
        let terminals = Arc::clone(&live);
        let sending = async {
            inputs.send(sender).await?;
            sender.send(&start).await?;
            handed_over.store(true, Ordering::Release);
            // From here on what turns need, and what becomes of files and terminals.
            loop {
                let turns = OptionFuture::from(orders.as_mut().map(mpsc::Receiver::recv));
                let frame = tokio::select! {
                    biased;
                    Some(Some(frame)) = turns => frame,
                    Some(frame) = outgoing.recv() => frame,
                    frame = terminals.board.next() => frame,
                    else => return Ok(()),
                };
                sender.send(&frame).await?;
            }
        };
        let (terminated, overrun) = (backend.wait(id), backend.overrun(id));
        let mut spared = !self.grace().is_zero();
        tokio::pin!(sending, terminated, overrun);
        let (mut sent, mut ended) = (false, false);
        let (mut starting, mut until) = (Patience::new(patience), Instant::now() + patience);

        loop {
            tokio::select! {
                // In this order: a runner that floods the pipe must not keep the others from being looked at.
                biased;
                () = sleep_until(until), if ended || collected.started.is_some() => {
                    if ended {
                        return Decided::Lost("the sandbox ended without reporting an exit");
                    }
                    return Decided::Quota(self.life().1);
                }
                () = starting.run_out(), if !ended && collected.started.is_none() => {
                    return Decided::Lost("the runner did not start the program");
                }
                by = live.cancelled() => return Decided::Cancelled(by),
                () = deadline.cancelled() => return Decided::Drained,
                termination = &mut terminated, if !ended => match termination {
                    Ok(Termination::Exceeded(limit)) => return Decided::Exceeded(limit),
                    // An exit frame may still be in the pipe.
                    Ok(Termination::Exited | Termination::Killed) => {
                        ended = true;
                        until = until.min(Instant::now() + DRAIN_PATIENCE);
                    }
                    Ok(Termination::Lost(detail)) => {
                        tracing::warn!(session = %self.session.id, sandbox = %id, detail, "sandbox lost");
                        ended = true;
                        until = until.min(Instant::now() + DRAIN_PATIENCE);
                    }
                    Err(error) => {
                        self.log_failure("wait", &error);
                        return Decided::Lost("the sandbox cannot be observed");
                    }
                },
                // Before it is ended for it. What has not started has no files to be had.
                over = &mut overrun, if spared && collected.started.is_some() => match over {
                    Ok(limit) => return Decided::Exceeded(limit),
                    // Then `wait` says why.
                    Err(_) => spared = false,
                },
                end = egress.ended(), if egress.is_open() => match end {
                    End::WithItsPipe => {}
                    // Whatever becomes of a program that is suddenly cut off is no fault of its own.
                    End::Failed => return Decided::CutOff,
                },
                result = &mut sending, if !sent => {
                    sent = true;
                    match result {
                        Ok(()) => {}
                        // The pipe closes when the sandbox dies; why it died comes from `wait`.
                        Err(SendError::Channel(error)) => self.log_failure("send", &error),
                        Err(error @ SendError::Spool(_)) => {
                            self.log_failure("start", &error);
                            return Decided::NotPut;
                        }
                    }
                }
                step = Conversation::next(&mut collected.talk, &live.board, &draining), if !ended => {
                    if let Some(decided) = self.converse(id, until, step, collected).await {
                        return decided;
                    }
                }
                frame = receiver.next() => match frame {
                    Err(ChannelError::Io(error)) => {
                        tracing::debug!(session = %self.session.id, %error, "the pipe broke");
                        return self.closed(id).await;
                    }
                    Err(error) => return Decided::Violation(error),
                    Ok(None) => return self.closed(id).await,
                    Ok(Some(GuestFrame::Started { .. })) => {
                        let now = Instant::now();
                        collected.started = Some(now);
                        until = now + self.life().0;
                        let guard = self.guard(id, until);
                        if self.started(id, written).await.is_err() {
                            // The server's deadline; or the session is another's, and this end is not recorded either.
                            return Decided::Drained;
                        }
                        drop(guard);
                        if let Some(talk) = &mut collected.talk {
                            talk.started(now);
                        }
                        live.desk.open(frames.clone());
                        live.board.open();
                    }
                    Ok(Some(GuestFrame::Turned(turned))) => {
                        if let Some(decided) = self.turned(id, until, &turned, collected).await {
                            return decided;
                        }
                    }
                    Ok(Some(frame)) => if let Some(decided) = self.take(frame, collected) {
                        return decided;
                    },
                },
            }
        }
    }

    /// The pipe is closed: the backend knows why, or will in a moment.
    async fn closed(&self, id: &SandboxId) -> Decided {
        let lost = Decided::Lost("the sandbox ended without reporting an exit");
        self.limit_behind(id).await.map_or(lost, Decided::Exceeded)
    }

    /// Which of the backend's limits closed a pipe, if one did.
    pub(super) async fn limit_behind(&self, id: &SandboxId) -> Option<SandboxLimit> {
        match timeout(DRAIN_PATIENCE, self.backend.wait(id)).await {
            Ok(Ok(Termination::Exceeded(limit))) => Some(limit),
            Ok(Ok(Termination::Exited | Termination::Killed | Termination::Lost(_)) | Err(_)) | Err(_) => None,
        }
    }

    /// Records sandbox and start together: the sandbox alone is of no use to anybody before.
    async fn started(&mut self, id: &SandboxId, written: &[Draft]) -> Result<(), Unrecorded> {
        self.advance(id, [Event::Provisioned { sandbox: id.to_string() }, Event::Started], written).await
    }

    /// Records a sandbox whose program never started.
    async fn provisioned(&mut self, id: &SandboxId) -> Result<(), Unrecorded> {
        self.advance(id, [Event::Provisioned { sandbox: id.to_string() }], &[]).await
    }

    /// `written` come behind the first event.
    async fn advance<const N: usize>(
        &mut self,
        id: &SandboxId,
        events: [Event; N],
        written: &[Draft],
    ) -> Result<(), Unrecorded> {
        let now = self.inner.clock.now();
        let (mut state, mut drafts) = (self.state.clone(), Vec::with_capacity(N));
        for event in events {
            let (next, draft) = state.apply(self.session.id, event, now).expect("the channel lets one start through");
            state = next;
            drafts.push(draft);
        }
        drafts.splice(1..1, written.iter().cloned());
        self.record(Change { state, drafts, sandbox: Some(id.clone()), result: None }).await
    }

    /// Takes a frame of a running workload.
    pub(super) fn take(&self, frame: GuestFrame, collected: &mut Collected) -> Option<Decided> {
        match frame {
            GuestFrame::Output { stream, data } => {
                let (chunk, budget) = collected.output.push(stream, &data);
                if let Some(chunk) = chunk {
                    self.live.hub.publish(&self::frame(stream, chunk));
                }
                if let Some(talk) = &mut collected.talk {
                    talk.wrote(stream, &data);
                }
                (budget == Budget::Exceeded).then_some(Decided::Quota(KillReason::OutputExceeded))
            }
            GuestFrame::Result { json } => {
                if let Some(talk) = &mut collected.talk {
                    talk.gave(&json);
                }
                collected.result = Some(json);
                None
            }
            GuestFrame::Exceeded { limit: GuestLimit::Pids } => Some(Decided::Quota(KillReason::PidsExceeded)),
            GuestFrame::Exceeded { limit: GuestLimit::Output } => Some(Decided::Quota(KillReason::OutputExceeded)),
            GuestFrame::Exceeded { limit: GuestLimit::Disk } | GuestFrame::NotPut { reason: NotPut::NoSpace, .. } => {
                Some(Decided::Quota(KillReason::DiskExceeded))
            }
            GuestFrame::Exited { exit, .. } => Some(Decided::Exited(exit.code())),
            GuestFrame::Fault { message } => {
                tracing::warn!(session = %self.session.id, message = %message.escape_debug(), "runner fault");
                Some(Decided::Lost("the runner could not run the program"))
            }
            GuestFrame::NotPut { reason: NotPut::InTheWay | NotPut::Failed, message } => {
                tracing::warn!(session = %self.session.id, message = %message.escape_debug(), "not put");
                Some(Decided::NotPut)
            }
            // Behind the end of its session the end of a turn is nobody's.
            GuestFrame::Turned(_) => None,
            GuestFrame::Hello { .. } | GuestFrame::Started { .. } => {
                unreachable!("taken before this; the channel's order check lets each through once")
            }
            GuestFrame::File(reply) => self.live.desk.answer(reply).err().map(|error| Decided::Violation(error.into())),
            GuestFrame::Terminal(reply) => {
                self.live.board.answer(reply).err().map(|error| Decided::Violation(error.into()))
            }
        }
    }

    /// Takes what an ended sandbox had still written. The patience is with the pipe alone: a start that is recorded late is
    /// recorded whole.
    async fn drain(&mut self, id: &SandboxId, written: &[Draft], receiver: &mut Receiver, collected: &mut Collected) {
        let until = Instant::now() + DRAIN_PATIENCE;
        loop {
            let Ok(next) = timeout_at(until, receiver.next()).await else {
                tracing::warn!(session = %self.session.id, "the pipe of an ended sandbox stayed open");
                return;
            };
            match next {
                Ok(Some(GuestFrame::Started { .. })) => {
                    collected.started = Some(Instant::now());
                    if self.started(id, written).await.is_err() {
                        return;
                    }
                }
                Ok(Some(frame @ (GuestFrame::Output { .. } | GuestFrame::Result { .. }))) => {
                    if self.take(frame, collected).is_some() {
                        return;
                    }
                }
                Ok(Some(
                    GuestFrame::Hello { .. }
                    | GuestFrame::Exceeded { .. }
                    | GuestFrame::Exited { .. }
                    | GuestFrame::Fault { .. }
                    | GuestFrame::NotPut { .. }
                    | GuestFrame::Turned(_)
                    // Whoever asked for it was sent away.
                    | GuestFrame::File(_)
                    | GuestFrame::Terminal(_),
                )) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// The result is JSON from a hostile place: it is read through and bounded, or refused where the caller sees it.
    pub(super) fn parse_result(&self, json: &[u8], collected: &mut Collected) -> Option<JsonText> {
        let refused = match JsonText::parse(json, MAX_RESULT_DEPTH) {
            Ok(text) => return Some(text),
            Err(error) => error,
        };
        let line = format!("enclave: the result was refused: {refused}\n");
        if let Some(talk) = &mut collected.talk {
            talk.wrote(Stream::Stderr, line.as_bytes());
        }
        if let (Some(chunk), _) = collected.output.push(Stream::Stderr, line.as_bytes()) {
            self.live.hub.publish(&frame(Stream::Stderr, chunk));
        }
        None
    }
}

pub(super) fn frame(stream: Stream, chunk: wire::Chunk) -> StreamFrame {
    match stream {
        Stream::Stdout => StreamFrame::Stdout(chunk),
        Stream::Stderr => StreamFrame::Stderr(chunk),
    }
}
