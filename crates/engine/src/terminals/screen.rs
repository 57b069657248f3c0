//! One terminal: what it has written and who has it, what was typed and who has not taken it.
//!
//! ```text
//! start        received (of the slowest client)      sent (to it)      end
//!   |------ held ------|---------- under way ----------|-----------------|
//!                      acked: this much the runner may send anew
//! ```

use std::collections::{BTreeMap, VecDeque};

use protocol::{
    Exit, OrderError,
    terminals::{
        OpenTerminal, TERMINAL_CHUNK_BYTES, TERMINAL_INPUT_BYTES, TERMINAL_WINDOW_BYTES, TerminalOp, TerminalSize,
    },
};
use tokio::sync::{oneshot, watch};
use wire::{Terminal, TerminalExit, TerminalState};

use super::board::NotBegun;

/// Output that is held for clients that come back. All that the runner may have sent fits.
pub(super) const HELD_BYTES: u64 = TERMINAL_WINDOW_BYTES;
/// Output that may be under way to one client.
pub(super) const CLIENT_WINDOW_BYTES: u64 = 64 * 1024;
/// Input that waits here; more makes whoever types wait.
const QUEUED_BYTES: usize = 64 * 1024;
/// Clients of one terminal.
const MAX_CLIENTS: usize = 16;
/// What is worth an acknowledgement of its own.
const ACK_BYTES: u64 = TERMINAL_WINDOW_BYTES / 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) view: Terminal,
    pub(super) stage: Stage,
    /// Who asked for its end.
    pub(super) closed_by: Option<String>,
    /// Told when there is something new, for clients and for who waits for its end.
    pub(super) changed: watch::Sender<()>,
    held: VecDeque<u8>,
    start: u64,
    acked: u64,
    /// What of that the runner was told.
    told: u64,
    /// What each client has received.
    clients: BTreeMap<u64, u64>,
    input: VecDeque<u8>,
    /// Input that the runner has and the terminal has not taken.
    ahead: u64,
    size: Option<TerminalSize>,
    close: Close,
}

/// How far a terminal is.
#[derive(Debug)]
pub(super) enum Stage {
    /// The runner has not been asked for it.
    Asked(OpenTerminal, oneshot::Sender<Result<(), NotBegun>>),
    /// It has.
    Opening(oneshot::Sender<Result<(), NotBegun>>),
    Running,
    /// How; none when it ended with its session.
    Ended(Option<TerminalExit>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Close {
    No,
    Wanted,
    Sent,
}

/// Why something cannot be typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// There is no room yet.
    Full,
    /// Its program has ended, or is about to.
    Ended,
}

impl Screen {
    pub(super) fn new(view: Terminal, open: OpenTerminal, made: oneshot::Sender<Result<(), NotBegun>>) -> Self {
        Self {
            view,
            stage: Stage::Asked(open, made),
            closed_by: None,
            changed: watch::Sender::new(()),
            held: VecDeque::new(),
            start: 0,
            acked: 0,
            told: 0,
            clients: BTreeMap::new(),
            input: VecDeque::new(),
            ahead: 0,
            size: None,
            close: Close::No,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended(_))
    }

    pub(super) fn is_watched(&self) -> bool {
        !self.clients.is_empty()
    }

    /// How many bytes it has written.
    pub(super) fn end(&self) -> u64 {
        self.start + self.held.len() as u64
    }

    /// Offset of the oldest byte that is held.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// What the runner has to be told next.
    pub(super) fn next_op(&mut self) -> Option<TerminalOp> {
        match std::mem::replace(&mut self.stage, Stage::Ended(None)) {
            Stage::Asked(open, made) => {
                self.stage = Stage::Opening(made);
                return Some(TerminalOp::Open(open));
            }
            stage @ (Stage::Opening(_) | Stage::Ended(_)) => {
                self.stage = stage;
                return None;
            }
            Stage::Running => self.stage = Stage::Running,
        }
        match self.close {
            Close::Sent => return None,
            Close::Wanted => {
                self.close = Close::Sent;
                return Some(TerminalOp::Close);
            }
            Close::No => {}
        }
        if let Some(size) = self.size.take() {
            return Some(TerminalOp::Resize(size));
        }
        let room = usize::try_from(TERMINAL_INPUT_BYTES.saturating_sub(self.ahead)).unwrap_or(usize::MAX);
        let most = room.min(TERMINAL_CHUNK_BYTES).min(self.input.len());
        if most > 0 {
            self.ahead += most as u64;
            self.changed.send_replace(());
            return Some(TerminalOp::Input(self.input.drain(..most).collect()));
        }
        let bytes = self.acked - self.told;
        (bytes >= ACK_BYTES).then(|| {
            self.told = self.acked;
            TerminalOp::Ack { bytes: u32::try_from(bytes).expect("no more than the window") }
        })
    }

    /// It was made.
    pub(super) fn opened(&mut self) -> Result<(), OrderError> {
        match std::mem::replace(&mut self.stage, Stage::Running) {
            Stage::Opening(made) => {
                // Whoever asked may have gone.
                let _ = made.send(Ok(()));
                Ok(())
            }
            Stage::Asked(..) | Stage::Running | Stage::Ended(_) => Err(OrderError::Unasked),
        }
    }

    /// Takes what was written.
    pub(super) fn output(&mut self, data: &[u8]) -> Result<(), OrderError> {
        if !matches!(self.stage, Stage::Running) {
            return Err(OrderError::Unasked);
        }
        if self.end() - self.told + data.len() as u64 > TERMINAL_WINDOW_BYTES {
            return Err(OrderError::Excessive("terminal"));
        }
        self.held.extend(data);
        self.trim();
        self.changed.send_replace(());
        Ok(())
    }

    /// So much of the input was taken.
    pub(super) fn took(&mut self, bytes: u32) -> Result<(), OrderError> {
        let (true, Some(ahead)) = (matches!(self.stage, Stage::Running), self.ahead.checked_sub(bytes.into())) else {
            return Err(OrderError::Unasked);
        };
        self.ahead = ahead;
        Ok(())
    }

    /// Its program has ended.
    pub(super) fn exited(&mut self, exit: Exit) -> Result<(), OrderError> {
        if !matches!(self.stage, Stage::Running) {
            return Err(OrderError::Unasked);
        }
        self.view.exit_code = Some(exit.code());
        self.finish(Some(match exit {
            Exit::Code(code) => TerminalExit { code: Some(code.into()), signal: None },
            Exit::Signal(signal) => TerminalExit { code: None, signal: Some(signal.into()) },
        }));
        Ok(())
    }

    /// Nothing comes of it any more.
    pub(super) fn finish(&mut self, exit: Option<TerminalExit>) {
        self.stage = Stage::Ended(exit);
        self.view.state = TerminalState::Exited;
        self.input = VecDeque::new();
        self.changed.send_replace(());
    }

    /// Asks for its end; false if it was asked for already.
    pub(super) fn close(&mut self, by: Option<String>) -> bool {
        if self.close != Close::No || self.has_ended() {
            return false;
        }
        self.close = Close::Wanted;
        self.closed_by = by;
        self.input.clear();
        true
    }

    /// Takes a size.
    pub(super) fn resize(&mut self, size: wire::TerminalSize) {
        if !self.has_ended() {
            (self.view.rows, self.view.cols) = (size.rows, size.cols);
            self.size = Some(inside(size));
        }
    }

    /// Takes what is typed, if there is room.
    pub(super) fn typed(&mut self, data: &[u8]) -> Result<(), NotTaken> {
        if !matches!(self.stage, Stage::Running) || self.close != Close::No {
            return Err(NotTaken::Ended);
        }
        if self.input.len() >= QUEUED_BYTES {
            return Err(NotTaken::Full);
        }
        self.input.extend(data);
        Ok(())
    }

    /// A client looks from here on; false if there are too many.
    pub(super) fn attach(&mut self, client: u64, from: u64) -> bool {
        if self.clients.len() >= MAX_CLIENTS {
            return false;
        }
        self.clients.insert(client, from);
        true
    }

    /// A client has received this much, if it was sent.
    pub(super) fn received(&mut self, client: u64, offset: u64) {
        if let Some(received) = self.clients.get_mut(&client).filter(|received| offset > **received) {
            *received = offset;
            self.taken();
            // There may be room for more under way to it.
            self.changed.send_replace(());
        }
    }

    pub(super) fn detach(&mut self, client: u64) {
        self.clients.remove(&client);
        self.taken();
    }

    /// The next part for a client that was sent everything up to here.
    pub(super) fn part(&self, client: u64, sent: u64) -> Vec<u8> {
        let received = self.clients.get(&client).copied().unwrap_or(sent);
        let room = CLIENT_WINDOW_BYTES.saturating_sub(sent.saturating_sub(received));
        let most = room.min(TERMINAL_CHUNK_BYTES as u64).min(self.end() - sent);
        let at = usize::try_from(sent - self.start).expect("what is held fits into memory");
        self.held.range(at..at + usize::try_from(most).expect("a part is small")).copied().collect()
    }

    /// What every client that looks has, the runner may send anew.
    fn taken(&mut self) {
        if let Some(slowest) = self.clients.values().min() {
            self.acked = self.acked.max(*slowest);
        }
        self.trim();
    }

    /// Lets go of what is neither new nor missing to anybody who looks.
    fn trim(&mut self) {
        let oldest = self.end().saturating_sub(HELD_BYTES);
        let keep = self.clients.values().copied().fold(oldest, u64::min);
        let gone = keep.saturating_sub(self.start);
        self.held.drain(..usize::try_from(gone).expect("what is held fits into memory"));
        self.start += gone;
    }
}

/// A size as the runner takes it.
pub(super) fn inside(size: wire::TerminalSize) -> TerminalSize {
    TerminalSize { rows: size.rows, cols: size.cols }
}
