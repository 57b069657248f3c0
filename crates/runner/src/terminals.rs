//! The terminals of this sandbox, as the loop has them: what each may still send, what it has still to take, its end.
//!
//! The loop never waits for one of them: descriptors do not block, output is read only as far as the host has credit for
//! it, and of input no more is kept than the protocol lets the host send ahead.

mod open;

use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::{Duration, Instant},
};

use protocol::{
    Exit, GuestFrame,
    terminals::{
        MAX_TERMINALS, OpenTerminal, TERMINAL_CHUNK_BYTES, TERMINAL_INPUT_BYTES, TERMINAL_WINDOW_BYTES, TerminalReply,
        TerminalSaid, TerminalSize,
    },
};
use rustix::{
    event::PollFlags,
    io::Errno,
    process::{Pid, Signal},
};

pub(crate) use self::open::{Ground, NotOpened, Pty, open};
use crate::{outbox::Outbox, processes::signal_session};

/// How long what runs in a terminal that is closed may take to end by itself.
const GRACE: Duration = Duration::from_secs(1);
/// Until what does not die of SIGKILL is given up.
const UNKILLABLE: Duration = Duration::from_secs(6);
/// Between two looks at a terminal that is being closed.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The host asks for what may not be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wrong(pub(crate) &'static str);

/// An order to make one.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) terminal: u32,
    pub(crate) asked: OpenTerminal,
    /// Gets the number of its program.
    pub(crate) pid: Arc<AtomicI32>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Terminals(BTreeMap<u32, Terminal>);

#[derive(Debug)]
struct Terminal {
    /// Of its first program; zero until there is one.
    pid: Arc<AtomicI32>,
    /// None while it is being made.
    pty: Option<Pty>,
    /// How its first program has ended.
    exit: Option<Exit>,
    /// Bytes that may still be sent.
    credit: u64,
    /// Bytes that were not taken yet.
    input: VecDeque<u8>,
    closing: Option<Closing>,
}

/// A terminal that the host has closed.
#[derive(Debug)]
struct Closing {
    since: Instant,
    /// When to look what is left of it; none before its programs were told.
    look_at: Option<Instant>,
}

impl Terminals {
    /// Begins one.
    pub(crate) fn begin(&mut self, terminal: u32, asked: OpenTerminal) -> Result<Order, Wrong> {
        if self.0.len() >= MAX_TERMINALS || self.0.contains_key(&terminal) {
            return Err(Wrong("too many terminals, or two of one number"));
        }
        let pid = Arc::<AtomicI32>::default();
        let new = Terminal {
            pid: Arc::clone(&pid),
            pty: None,
            exit: None,
            credit: TERMINAL_WINDOW_BYTES,
            input: VecDeque::new(),
            closing: None,
        };
        self.0.insert(terminal, new);
        Ok(Order { terminal, asked, pid })
    }

    /// It was made, or not.
    pub(crate) fn opened(&mut self, number: u32, made: Result<Pty, NotOpened>, outbox: &mut Outbox) {
        // It may be of no interest any more.
        let Some(terminal) = self.0.get_mut(&number) else { return };
        match made {
            Ok(pty) => {
                terminal.pty = Some(pty);
                say(outbox, number, TerminalSaid::Opened);
            }
            Err(not_opened) => {
                self.0.remove(&number);
                say(outbox, number, not_opened.said());
            }
        }
    }

    /// Takes what was typed.
    pub(crate) fn input(&mut self, number: u32, data: &[u8]) -> Result<(), Wrong> {
        let Some(terminal) = self.0.get_mut(&number) else { return Ok(()) };
        let over = (terminal.input.len() + data.len()) as u64 > TERMINAL_INPUT_BYTES;
        if over || data.len() > TERMINAL_CHUNK_BYTES {
            return Err(Wrong("more input than a terminal has room for"));
        }
        terminal.input.extend(data);
        Ok(())
    }

    /// Gives it a size.
    pub(crate) fn resize(&self, number: u32, size: TerminalSize) {
        if let Some(pty) = self.0.get(&number).and_then(|terminal| terminal.pty.as_ref()) {
            // A terminal that takes no size is as it was.
            let _ = open::resize(&pty.master, size);
        }
    }

    /// Takes credit for its output.
    pub(crate) fn credit(&mut self, number: u32, bytes: u32) -> Result<(), Wrong> {
        let Some(terminal) = self.0.get_mut(&number) else { return Ok(()) };
        terminal.credit += u64::from(bytes);
        if terminal.credit > TERMINAL_WINDOW_BYTES {
            return Err(Wrong("more output of a terminal acknowledged than was sent"));
        }
        Ok(())
    }

    /// Begins to end it.
    pub(crate) fn close(&mut self, number: u32) {
        if let Some(terminal) = self.0.get_mut(&number) {
            terminal.closing.get_or_insert(Closing { since: Instant::now(), look_at: None });
        }
    }

    /// Takes the end of a process, which may be the first of a terminal.
    pub(crate) fn ended(&mut self, pid: Pid, exit: Exit) {
        let number = pid.as_raw_nonzero().get();
        // One whose program has ended has its number no longer.
        let of = |terminal: &&mut Terminal| terminal.exit.is_none() && terminal.pid.load(Ordering::Acquire) == number;
        if let Some(terminal) = self.0.values_mut().find(of) {
            terminal.exit = Some(exit);
        }
    }

    /// What is to be watched, and for what.
    pub(crate) fn wanted(&self, has_room: bool) -> impl Iterator<Item = (u32, BorrowedFd<'_>, PollFlags)> {
        self.0.iter().filter_map(move |(number, terminal)| {
            let pty = terminal.pty.as_ref().filter(|_| terminal.closing.is_none())?;
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, terminal.credit > 0 && has_room);
            flags.set(PollFlags::OUT, !terminal.input.is_empty());
            // Of a descriptor that is watched for nothing, its end would be told again and again.
            (!flags.is_empty()).then(|| (*number, pty.master.as_fd(), flags))
        })
    }

    /// When there is something to be done that no descriptor tells of.
    pub(crate) fn due(&self, has_room: bool) -> Option<Instant> {
        let due = |terminal: &Terminal| match &terminal.closing {
            _ if terminal.pty.is_none() => None,
            Some(closing) => Some(closing.look_at.unwrap_or(closing.since)),
            None => (terminal.exit.is_some() && terminal.credit > 0 && has_room).then(Instant::now),
        };
        self.0.values().filter_map(due).min()
    }

    /// Carries what can be carried without waiting.
    pub(crate) fn serve(&mut self, is_ready: impl Fn(u32) -> bool, chunk: &mut [u8], outbox: &mut Outbox) {
        self.0.retain(|number, terminal| {
            let Some(pty) = &terminal.pty else { return true };
            if let Some(closing) = &mut terminal.closing {
                let Some(exit) = closing.advance(&terminal.pid, terminal.exit) else { return true };
                say(outbox, *number, TerminalSaid::Ended(exit));
                return false;
            }
            if is_ready(*number) {
                take_input(*number, pty, &mut terminal.input, outbox);
            }
            if !(is_ready(*number) || terminal.exit.is_some()) || terminal.credit == 0 || !outbox.has_room() {
                return true;
            }
            let most =
                chunk.len().min(TERMINAL_CHUNK_BYTES).min(usize::try_from(terminal.credit).unwrap_or(usize::MAX));
            match (rustix::io::read(&pty.master, &mut chunk[..most]), terminal.exit) {
                (Ok(count @ 1..), _) => {
                    terminal.credit -= count as u64;
                    say(outbox, *number, TerminalSaid::Output(chunk[..count].to_vec()));
                    true
                }
                (Err(Errno::INTR), _) | (Ok(_) | Err(_), None) => true,
                // Nothing is left of what it had written.
                (Ok(_) | Err(_), Some(exit)) => {
                    say(outbox, *number, TerminalSaid::Ended(exit));
                    false
                }
            }
        });
    }
}

impl Closing {
    /// Goes on with the end of a terminal whose first program has this number; gives how that ended once nothing is left.
    fn advance(&mut self, pid: &AtomicI32, exit: Option<Exit>) -> Option<Exit> {
        let now = Instant::now();
        if self.look_at.is_some_and(|at| now < at) {
            return None;
        }
        let leader = Pid::from_raw(pid.load(Ordering::Acquire))?;
        let told = self.look_at.replace(now + LOOK_AGAIN).is_some();
        let left = if now.duration_since(self.since) >= GRACE {
            signal_session(leader, Signal::KILL)
        } else if told {
            // Whoever was stopped has to run to end.
            signal_session(leader, Signal::CONT)
        } else {
            signal_session(leader, Signal::HUP) | signal_session(leader, Signal::CONT)
        };
        match exit {
            Some(exit) if !left => Some(exit),
            _ if now.duration_since(self.since) >= UNKILLABLE => Some(exit.unwrap_or(Exit::Signal(9))),
            Some(_) | None => None,
        }
    }
}

/// Writes what the terminal takes, and says how much that was.
fn take_input(number: u32, pty: &Pty, input: &mut VecDeque<u8>, outbox: &mut Outbox) {
    let mut took = 0;
    while !input.is_empty() {
        let (first, _) = input.as_slices();
        match rustix::io::write(&pty.master, first) {
            Ok(count @ 1..) => {
                input.drain(..count);
                took += count;
            }
            Err(Errno::INTR) => {}
            // It takes more later.
            Ok(_) | Err(Errno::AGAIN) => break,
            // It is gone, and its end says so.
            Err(_) => {
                took += input.len();
                input.clear();
            }
        }
    }
    if took > 0 {
        let bytes = u32::try_from(took).expect("input is bounded");
        say(outbox, number, TerminalSaid::Took { bytes });
    }
}

fn say(outbox: &mut Outbox, terminal: u32, said: TerminalSaid) {
    outbox.push(&GuestFrame::Terminal(TerminalReply { terminal, said }));
}
