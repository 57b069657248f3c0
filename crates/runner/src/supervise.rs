//! The poll loop: one language host, one program, until its end.
//!
//! ```text
//! waiting --Start--> handed over --"started"--> running --first process ends--> ending --all sent--> gone
//!                                                (turns)
//!     any of them --host closes the pipe--> gone          before "started": its end is a fault
//! ```
//!
//! While it waits, files may be put into the working directory; from the start on they are read and written for the host
//! ([`crate::files`]), and where the host asked for it until it closes the pipe, however the program ended.
//!
//! Each turn of the loop reads at most one chunk from every pipe, so that no stream silences another. When the host
//! does not keep up, the workload's pipes are left alone until it does; children are reaped whatever the host does.

mod ending;
mod files;
mod terminals;
mod turning;
mod waiting;

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use protocol::{
    Decoder, Exit, GuestFrame, GuestLimit, HostFrame, MAX_FAULT_BYTES, OUTPUT_CHUNK_BYTES, Put, Start, Stream,
};
use rustix::{event::Timespec, io::Errno, thread::CapabilitySet};

use crate::{
    args::Args,
    census::{Census, Cgroup},
    control::Inbox,
    egress::{Egress, EgressError, Settler},
    files::Clerk,
    interpreter::{Interpreter, Launch, SpawnError, nonblocking},
    log,
    outbox::Outbox,
    processes::{Processes, Rest},
    put::{Putter, Refused},
    session::Session,
    setup::{self, Sandbox},
    terminals::Terminals,
};

use self::waiting::Source;

/// How long the last words of a faulty runner may take.
const LAST_WORDS: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };
/// How long processes that do not die of SIGKILL are waited for.
const UNKILLABLE: Duration = Duration::from_secs(5);
/// Between two rounds of killing.
const KILL_AGAIN: Duration = Duration::from_millis(5);

/// Why the language host could not be started ahead.
#[derive(Debug)]
pub(crate) enum StartError {
    /// Descriptor 0 is not a usable pipe.
    HostPipe(Errno),
    /// There is no way out.
    Egress(EgressError),
    /// There is no process.
    Spawn(SpawnError),
    /// It could not be put into its cgroup.
    Admit(std::io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::HostPipe(errno) => write!(f, "descriptor 0: {errno}"),
            Self::Egress(error) => write!(f, "{error}"),
            Self::Spawn(error) => write!(f, "{error}"),
            Self::Admit(error) => write!(f, "moving the language host into its cgroup: {error}"),
        }
    }
}

/// Why the loop ends.
#[derive(Debug)]
enum End {
    /// The program ended and the host has everything.
    Complete,
    /// The host closed the pipe: nobody is left to work for.
    HostGone,
    /// This process cannot go on.
    Fault(String),
    /// What the host sent could not be put into the working directory.
    NotPut(Refused),
}

/// What is known once the program's first process has ended.
#[derive(Debug)]
struct Ended {
    exit: Exit,
    /// When to kill what is left, again.
    kill_at: Instant,
    /// When to give up on it.
    deadline: Instant,
    /// Whether that time has come.
    gave_up: bool,
    /// Whether the last frame is queued.
    said: bool,
}

/// The state of the loop.
#[derive(Debug)]
pub(crate) struct Supervisor {
    launch: Launch,
    processes: Processes,
    signals: OwnedFd,
    cgroup: Option<Cgroup>,
    /// A directory on the disk whose use is bounded, if there is one.
    disk: Option<PathBuf>,
    /// What ends the way out, if there is one.
    egress: Option<Settler>,
    interpreter: Interpreter,
    from_host: Decoder,
    inbox: Inbox,
    /// What puts files before the start.
    putter: Option<Putter>,
    /// What serves files from then on.
    clerk: Option<Clerk>,
    terminals: Terminals,
    /// Whether to stay when the program has ended.
    stays: bool,
    session: Option<Session>,
    census: Option<Census>,
    /// Whether what only starting the language host needs was given up.
    settled: bool,
    ended: Option<Ended>,
    rest: Rest,
    chunk: Box<[u8]>,
}

/// Starts the way out and the language host ahead of the session.
pub(crate) fn start(args: &Args, sandbox: Sandbox) -> Result<Supervisor, StartError> {
    let Sandbox { user, processes, signals, cgroup, egress } = sandbox;
    nonblocking(rustix::stdio::stdin()).map_err(StartError::HostPipe)?;
    // Before anybody inside could look for it.
    let egress = egress.map(Egress::start).transpose().map_err(StartError::Egress)?;
    let launch = Launch {
        language: args.language,
        user,
        workspace: args.workspace.clone(),
        snapshots: Some(args.snapshots.clone()),
    };
    let interpreter = Interpreter::spawn(&launch).map_err(StartError::Spawn)?;
    if let Some(cgroup) = &cgroup {
        cgroup.admit(interpreter.pid).map_err(StartError::Admit)?;
    }
    Ok(Supervisor {
        launch,
        processes,
        signals,
        cgroup,
        disk: args.disk.as_ref().map(|_| args.workspace.clone()),
        egress,
        interpreter,
        from_host: Decoder::new(),
        inbox: Inbox::default(),
        putter: None,
        clerk: None,
        terminals: Terminals::default(),
        stays: false,
        session: None,
        census: None,
        settled: false,
        ended: None,
        rest: Rest::Alive,
        chunk: vec![0; OUTPUT_CHUNK_BYTES].into(),
    })
}

/// Tells the host that this sandbox is of no use, and gives the exit code to leave with.
pub(crate) fn fault(outbox: Outbox, message: String) -> ExitCode {
    last_words(outbox, message, |message| GuestFrame::Fault { message })
}

fn last_words(mut outbox: Outbox, mut message: String, frame: impl FnOnce(String) -> GuestFrame) -> ExitCode {
    log::line(&message);
    message.truncate(message.floor_char_boundary(MAX_FAULT_BYTES));
    outbox.push(&frame(message));
    outbox.flush_all(LAST_WORDS);
    ExitCode::FAILURE
}

impl Supervisor {
    /// Runs until the end.
    pub(crate) fn run(mut self, mut outbox: Outbox) -> ExitCode {
        let end = loop {
            if let Err(end) = self.turn(&mut outbox) {
                break end;
            }
        };
        match end {
            End::Complete => ExitCode::SUCCESS,
            End::HostGone => {
                self.kill_and_wait();
                ExitCode::FAILURE
            }
            End::Fault(message) => {
                self.processes.kill();
                let code = fault(outbox, message);
                self.kill_and_wait();
                code
            }
            End::NotPut(Refused { reason, message }) => {
                self.processes.kill();
                let code = last_words(outbox, message, |message| GuestFrame::NotPut { reason, message });
                self.kill_and_wait();
                code
            }
        }
    }

    fn turn(&mut self, outbox: &mut Outbox) -> Result<(), End> {
        let ready = self.wait(outbox)?;
        outbox.flush_some();
        if outbox.is_broken() {
            return Err(End::HostGone);
        }
        if ready.has(Source::Host) {
            self.listen_to_host()?;
        }
        self.hand_over();
        if ready.has(Source::Control) || self.is_draining() {
            self.listen_to_language_host(outbox);
            self.settle()?;
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            if ready.has(Source::Output(stream)) || self.is_draining() || self.owes(stream) {
                self.forward(stream, outbox);
            }
        }
        if let Some(session) = &mut self.session {
            session.send_turned(outbox);
        }
        self.remind();
        let child_ended = ready.has(Source::Child);
        self.count(child_ended, outbox);
        if child_ended || self.rest == Rest::Unknown || self.is_killing() {
            self.reap(outbox)?;
        }
        if let Some(session) = &mut self.session {
            session.send_result(outbox);
        }
        if ready.has(Source::Files) {
            self.answer_host(outbox);
        }
        self.serve_terminals(&ready, outbox);
        self.finish(outbox)
    }

    /// Whether the workload's pipes are of interest: while its program runs, is within its budget, and the host keeps
    /// up.
    fn reads_output(&self, outbox: &Outbox) -> bool {
        let wanted = self.session.as_ref().is_some_and(|session| session.is_started() && !session.budget.is_exceeded());
        wanted && outbox.has_room()
    }

    /// The program runs: its language host has said so, and has not ended.
    fn is_running(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_started) && self.ended.is_none()
    }

    /// The first process has ended, and others may not have.
    fn is_killing(&self) -> bool {
        self.ended.as_ref().is_some_and(|ended| !ended.gave_up) && self.rest != Rest::None
    }

    /// Nobody is left to write, or to wait for: what the pipes hold is all that will come.
    fn is_draining(&self) -> bool {
        self.ended.as_ref().is_some_and(|ended| !ended.said && (ended.gave_up || self.rest == Rest::None))
    }

    fn listen_to_host(&mut self) -> Result<(), End> {
        match rustix::io::read(rustix::stdio::stdin(), &mut *self.chunk) {
            Ok(0) => return Err(self.hung_up()),
            Ok(count) => self.from_host.push(&self.chunk[..count]),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(_) => return Err(End::HostGone),
        }
        loop {
            match self.from_host.next_frame::<HostFrame>() {
                Ok(Some(HostFrame::Start(start))) => self.begin(&start)?,
                Ok(Some(HostFrame::Put(put))) => self.put(put)?,
                Ok(Some(HostFrame::Turn(turn))) => self.begin_turn(&turn)?,
                Ok(Some(HostFrame::Interrupt { turn })) => self.interrupt(turn),
                Ok(Some(HostFrame::File(call))) => self.call(call)?,
                Ok(Some(HostFrame::Stop)) => self.stop()?,
                Ok(Some(HostFrame::Terminal(call))) => self.call_terminal(call)?,
                Ok(None) => break,
                Err(error) => return Err(End::Fault(format!("from the host: {error}"))),
            }
        }
        if !self.from_host.is_mid_frame() {
            // Gives back the memory that a large program took.
            self.from_host = Decoder::new();
        }
        Ok(())
    }

    fn put(&mut self, put: Put) -> Result<(), End> {
        if self.session.is_some() {
            return Err(End::Fault("the host put a file after the start".to_owned()));
        }
        let mut putter = match self.putter.take() {
            Some(putter) => putter,
            None => Putter::start(&self.launch.workspace, self.launch.user).map_err(End::NotPut)?,
        };
        putter.put(put).map_err(End::NotPut)?;
        self.putter = Some(putter);
        Ok(())
    }

    fn begin(&mut self, start: &Start) -> Result<(), End> {
        if self.session.is_some() {
            return Err(End::Fault("the host started a second program".to_owned()));
        }
        if start.language != self.launch.language {
            let (ours, theirs) = (self.launch.language.as_str(), start.language.as_str());
            return Err(End::Fault(format!("this sandbox was prepared for {ours}, the program is for {theirs}")));
        }
        self.putter.take().map_or(Ok(()), Putter::finish).map_err(End::NotPut)?;
        let env: Vec<_> = self.interpreter.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.session = Some(Session::new(start, &env).map_err(|error| End::Fault(error.to_string()))?);
        self.serve_files(start)?;
        let census = Census::start(start.pids, self.cgroup.take(), self.processes, Instant::now());
        self.census = Some(census.map_err(|error| End::Fault(format!("setting the pids limit: {error}")))?);
        Ok(())
    }

    /// Writes what the language host takes of its messages.
    fn hand_over(&mut self) {
        let (Some(session), Some(control)) = (&mut self.session, &self.interpreter.control) else { return };
        while !session.unsent().is_empty() {
            match rustix::io::write(control, session.unsent()) {
                Ok(count) => session.wrote(count),
                Err(Errno::INTR) => {}
                // It takes more later, or it is gone, and its end says so.
                Err(_) => return,
            }
        }
        self.signal();
    }

    fn listen_to_language_host(&mut self, outbox: &mut Outbox) {
        let Some(control) = &self.interpreter.control else { return };
        let open = match rustix::io::read(control, &mut *self.chunk) {
            Ok(0) => false,
            Ok(count) => {
                let mut understood = Ok(());
                let mut hear = |message| {
                    if let (Some(session), Ok(())) = (&mut self.session, understood) {
                        understood = session.hear(message, outbox);
                    }
                };
                let cut = self.inbox.push(&self.chunk[..count], &mut hear);
                if cut.and(understood).is_err() {
                    log::line("the program wrote garbage to its control channel, which is closed now");
                }
                cut.and(understood).is_ok()
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => !self.is_draining(),
            Err(_) => false,
        };
        if !open {
            self.interpreter.control = None;
        }
        self.look_what_is_owed();
    }

    /// Once the program runs there is nothing left to be done but to kill and to reap.
    fn settle(&mut self) -> Result<(), End> {
        if !self.settled && self.is_running() {
            self.settled = true;
            setup::keep(CapabilitySet::KILL).map_err(|errno| End::Fault(format!("giving up capabilities: {errno}")))?;
        }
        Ok(())
    }

    fn forward(&mut self, stream: Stream, outbox: &mut Outbox) {
        if !self.reads_output(outbox) {
            return;
        }
        let draining = self.is_draining();
        let pipe = match stream {
            Stream::Stdout => &mut self.interpreter.stdout,
            Stream::Stderr => &mut self.interpreter.stderr,
        };
        let (Some(descriptor), Some(session)) = (&pipe, &mut self.session) else { return };
        let read = rustix::io::read(descriptor, &mut *self.chunk);
        if let (Some(turns), false) = (&mut session.turns, read == Err(Errno::INTR)) {
            turns.forwarded(stream, read.ok().filter(|count| *count > 0));
        }
        let open = match read {
            Ok(0) => false,
            Ok(count) => {
                session.budget.take(stream, &self.chunk[..count]).for_each(|frame| outbox.push(&frame));
                !session.budget.is_exceeded() || !draining
            }
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => !draining,
            Err(_) => false,
        };
        if !open {
            *pipe = None;
        }
    }

    /// Looks at the number of processes when it is time, and before ended ones are reaped and counted no more.
    fn count(&mut self, child_ended: bool, outbox: &mut Outbox) {
        let running = self.is_running();
        let Some(census) = self.census.as_mut().filter(|_| running) else { return };
        let now = Instant::now();
        if census.looks(now, child_ended) && census.is_exceeded(now) {
            outbox.push(&GuestFrame::Exceeded { limit: GuestLimit::Pids });
        }
    }
}
