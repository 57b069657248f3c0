//! The poll loop: one language host, one program, until its end.
//!
//! ```text
//! waiting --Start--> handed over --"started"--> running --first process ends--> ending --all sent--> gone
//!     any of them --host closes the pipe--> gone          before "started": its end is a fault
//! ```
//!
//! Each turn of the loop reads at most one chunk from every pipe, so that no stream silences another. When the host
//! does not keep up, the workload's pipes are left alone until it does; children are reaped whatever the host does.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    process::ExitCode,
    time::{Duration, Instant},
};

use protocol::{Decoder, Exit, GuestFrame, GuestLimit, HostFrame, Language, OUTPUT_CHUNK_BYTES, Start, Stream};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    thread::CapabilitySet,
};

use crate::{
    args::Args,
    census::{Census, Cgroup},
    control::Inbox,
    interpreter::{Interpreter, SpawnError, describe, nonblocking},
    log,
    outbox::Outbox,
    processes::{Processes, Rest},
    session::Session,
    setup::{self, Sandbox},
};

/// How long the last words of a faulty runner may take.
const LAST_WORDS: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };
/// How long processes that do not die of SIGKILL are waited for.
const UNKILLABLE: Duration = Duration::from_secs(5);
/// Between two rounds of killing.
const KILL_AGAIN: Duration = Duration::from_millis(5);
/// What is kept of a message to the operator.
const MAX_FAULT_BYTES: usize = 2048;

/// Why the language host could not be started ahead.
#[derive(Debug)]
pub(crate) enum StartError {
    /// Descriptor 0 is not a usable pipe.
    HostPipe(Errno),
    /// There is no process.
    Spawn(SpawnError),
    /// It could not be put into its cgroup.
    Admit(std::io::Error),
    /// Capabilities could not be given up.
    Capabilities(Errno),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::HostPipe(errno) => write!(f, "descriptor 0: {errno}"),
            Self::Spawn(error) => write!(f, "{error}"),
            Self::Admit(error) => write!(f, "moving the language host into its cgroup: {error}"),
            Self::Capabilities(errno) => write!(f, "giving up capabilities: {errno}"),
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

/// Which descriptors have something for us.
#[derive(Debug, Default, Clone, Copy)]
struct Ready {
    host: bool,
    child: bool,
    control: bool,
    stdout: bool,
    stderr: bool,
}

/// The state of the loop.
#[derive(Debug)]
pub(crate) struct Supervisor {
    language: Language,
    processes: Processes,
    signals: OwnedFd,
    cgroup: Option<Cgroup>,
    interpreter: Interpreter,
    from_host: Decoder,
    inbox: Inbox,
    session: Option<Session>,
    census: Option<Census>,
    ended: Option<Ended>,
    rest: Rest,
    chunk: Box<[u8]>,
}

/// Starts the language host ahead of the session.
pub(crate) fn start(args: &Args, sandbox: Sandbox) -> Result<Supervisor, StartError> {
    let Sandbox { user, processes, signals, cgroup } = sandbox;
    nonblocking(rustix::stdio::stdin()).map_err(StartError::HostPipe)?;
    let interpreter = Interpreter::spawn(args.language, user, &args.workspace).map_err(StartError::Spawn)?;
    if let Some(cgroup) = &cgroup {
        cgroup.admit(interpreter.pid).map_err(StartError::Admit)?;
    }
    // Killing and reaping is all that remains to be done.
    setup::keep(CapabilitySet::KILL).map_err(StartError::Capabilities)?;
    Ok(Supervisor {
        language: args.language,
        processes,
        signals,
        cgroup,
        interpreter,
        from_host: Decoder::new(),
        inbox: Inbox::default(),
        session: None,
        census: None,
        ended: None,
        rest: Rest::Alive,
        chunk: vec![0; OUTPUT_CHUNK_BYTES].into(),
    })
}

/// Tells the host that this sandbox is of no use, and gives the exit code to leave with.
pub(crate) fn fault(mut outbox: Outbox, mut message: String) -> ExitCode {
    log::line(&message);
    message.truncate(message.floor_char_boundary(MAX_FAULT_BYTES));
    outbox.push(&GuestFrame::Fault { message });
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
        }
    }

    fn turn(&mut self, outbox: &mut Outbox) -> Result<(), End> {
        let ready = self.wait(outbox)?;
        outbox.flush_some();
        if outbox.is_broken() {
            return Err(End::HostGone);
        }
        if ready.host {
            self.listen_to_host()?;
        }
        self.hand_over();
        if ready.control || self.is_draining() {
            self.listen_to_language_host(outbox);
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            let is_ready = match stream {
                Stream::Stdout => ready.stdout,
                Stream::Stderr => ready.stderr,
            };
            if is_ready || self.is_draining() {
                self.forward(stream, outbox);
            }
        }
        self.count(ready.child, outbox);
        if ready.child || self.rest == Rest::Unknown || self.is_killing() {
            self.reap(outbox)?;
        }
        if let Some(session) = &mut self.session {
            session.send_result(outbox);
        }
        self.finish(outbox)
    }

    /// Waits for something to do.
    fn wait(&self, outbox: &Outbox) -> Result<Ready, End> {
        let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
        let to_host = if outbox.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let unsent = self.session.as_ref().is_some_and(|session| !session.unsent().is_empty());
        let control = if unsent { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let reads_output = self.reads_output(outbox);
        let (mut sources, mut polled) = (Vec::with_capacity(6), Vec::with_capacity(6));
        let mut watch = |source: fn(&mut Ready) -> &mut bool, descriptor, flags| {
            sources.push(source);
            polled.push(PollFd::from_borrowed_fd(descriptor, flags));
        };
        watch(|ready| &mut ready.host, stdin, PollFlags::IN);
        watch(|ready| &mut ready.child, self.signals.as_fd(), PollFlags::IN);
        if let Some(descriptor) = &self.interpreter.control {
            watch(|ready| &mut ready.control, descriptor.as_fd(), control);
        }
        if let Some(descriptor) = self.interpreter.stdout.as_ref().filter(|_| reads_output) {
            watch(|ready| &mut ready.stdout, descriptor.as_fd(), PollFlags::IN);
        }
        if let Some(descriptor) = self.interpreter.stderr.as_ref().filter(|_| reads_output) {
            watch(|ready| &mut ready.stderr, descriptor.as_fd(), PollFlags::IN);
        }
        polled.push(PollFd::from_borrowed_fd(stdout, to_host));
        let timeout =
            self.timeout(outbox).map(|wait| Timespec::try_from(wait).expect("no wait is longer than seconds"));
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(End::Fault(format!("poll: {errno}"))),
        }
        let to_host = polled.pop().map_or(PollFlags::empty(), |host| host.revents());
        if to_host.intersects(PollFlags::ERR | PollFlags::NVAL) {
            return Err(End::HostGone);
        }
        let mut ready = Ready::default();
        for (source, polled) in sources.into_iter().zip(polled) {
            *source(&mut ready) = !polled.revents().is_empty();
        }
        Ok(ready)
    }

    fn timeout(&self, outbox: &Outbox) -> Option<Duration> {
        if self.is_draining() {
            return outbox.has_room().then_some(Duration::ZERO);
        }
        if self.rest == Rest::Unknown {
            return Some(Duration::ZERO);
        }
        if self.is_killing() {
            return Some(KILL_AGAIN);
        }
        let due = self.census.as_ref().filter(|_| self.is_running())?.due()?;
        Some(due.saturating_duration_since(Instant::now()))
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
            Ok(0) => return Err(End::HostGone),
            Ok(count) => self.from_host.push(&self.chunk[..count]),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(_) => return Err(End::HostGone),
        }
        loop {
            match self.from_host.next_frame::<HostFrame>() {
                Ok(Some(HostFrame::Start(start))) => self.begin(&start)?,
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

    fn begin(&mut self, start: &Start) -> Result<(), End> {
        if self.session.is_some() {
            return Err(End::Fault("the host started a second program".to_owned()));
        }
        if start.language != self.language {
            let (ours, theirs) = (self.language.as_str(), start.language.as_str());
            return Err(End::Fault(format!("this sandbox was prepared for {ours}, the program is for {theirs}")));
        }
        let env: Vec<_> = self.interpreter.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.session = Some(Session::new(start, &env).map_err(|error| End::Fault(error.to_string()))?);
        let census = Census::start(start.pids, self.cgroup.take(), self.processes, Instant::now());
        self.census = Some(census.map_err(|error| End::Fault(format!("setting the pids limit: {error}")))?);
        Ok(())
    }

    /// Writes what the language host takes of its message.
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
        let open = match rustix::io::read(descriptor, &mut *self.chunk) {
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

    fn reap(&mut self, outbox: &mut Outbox) -> Result<(), End> {
        // The descriptor only says that there is something to reap; which children, the reaping itself finds out.
        while matches!(rustix::io::read(&self.signals, &mut *self.chunk), Ok(1..)) {}
        let reaped = self.processes.reap(self.interpreter.pid);
        self.rest = reaped.rest;
        if let Some(exit) = reaped.first {
            self.first_ended(exit, outbox)?;
        }
        if self.is_killing() {
            self.kill();
        }
        Ok(())
    }

    fn first_ended(&mut self, exit: Exit, outbox: &mut Outbox) -> Result<(), End> {
        self.listen_to_language_host(outbox);
        if !self.session.as_ref().is_some_and(Session::is_started) {
            let name = self.language.as_str();
            let words = self.last_words();
            return Err(End::Fault(format!("the {name} host ended before its program: {}: {words}", describe(exit))));
        }
        let now = Instant::now();
        self.ended = Some(Ended { exit, deadline: now + UNKILLABLE, kill_at: now, gave_up: false, said: false });
        if let Some(census) = &self.census {
            census.close();
        }
        Ok(())
    }

    /// What an interpreter that could not start has to say about it.
    fn last_words(&mut self) -> String {
        let stderr = self.interpreter.stderr.as_ref();
        let count = stderr.and_then(|stderr| rustix::io::read(stderr, &mut *self.chunk).ok()).unwrap_or(0);
        String::from_utf8_lossy(&self.chunk[..count.min(MAX_FAULT_BYTES / 2)]).into_owned()
    }

    fn kill(&mut self) {
        let Some(ended) = &mut self.ended else { return };
        let now = Instant::now();
        if now >= ended.kill_at {
            ended.kill_at = now + KILL_AGAIN;
            self.processes.kill();
        }
        if now >= ended.deadline && !ended.gave_up {
            ended.gave_up = true;
            log::line("processes are left that SIGKILL does not end");
        }
    }

    /// Once the pipes are empty, says the last words and waits for them to be taken.
    fn finish(&mut self, outbox: &mut Outbox) -> Result<(), End> {
        let draining = self.is_draining();
        let (Some(session), Some(ended)) = (&mut self.session, &mut self.ended) else { return Ok(()) };
        let interpreter = &self.interpreter;
        let silent = interpreter.stdout.is_none() && interpreter.stderr.is_none() || session.budget.is_exceeded();
        if draining && silent && interpreter.control.is_none() && outbox.has_room() {
            session.send_last_result(outbox);
            outbox.push(&session.exited(ended.exit));
            ended.said = true;
            outbox.flush_some();
        }
        if ended.said && outbox.is_empty() { Err(End::Complete) } else { Ok(()) }
    }

    /// Leaves nothing behind. As pid 1, leaving is enough: the kernel ends the whole namespace.
    fn kill_and_wait(&mut self) {
        let deadline = Instant::now() + UNKILLABLE;
        while self.processes == Processes::Descendants && self.rest != Rest::None && Instant::now() < deadline {
            self.processes.kill();
            let mut ended = [PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)];
            let pause = Timespec::try_from(KILL_AGAIN).expect("a few milliseconds");
            // Interrupted or not, the next round looks again.
            let _ = poll(&mut ended, Some(&pause));
            self.rest = self.processes.reap(self.interpreter.pid).rest;
        }
    }
}
