//! The turns of an interactive session: begun, interrupted, and what has to be forwarded before one has ended.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use protocol::{Stream, Turn};
use rustix::process::{Signal, kill_process, kill_process_group};

use super::{End, Supervisor};
use crate::turns::{Owed, TurnError, Turns};

/// Until a turn that goes on in spite of its interrupt is signalled again: Node takes no notice of a signal that comes in the
/// moment between reading a turn and beginning it, or starting a child and waiting for it. Python ignores what is not
/// announced.
const AGAIN: Duration = Duration::from_millis(100);

impl Supervisor {
    pub(super) fn begin_turn(&mut self, turn: &Turn) -> Result<(), End> {
        // It may have ended while the turn was on its way. Its end is on its way, too.
        if self.ended.is_some() {
            return Ok(());
        }
        let begun = self.session.as_mut().map_or(Err(TurnError::None), |session| session.begin_turn(turn));
        begun.map_err(|error| End::Fault(error.to_string()))
    }

    /// Tells the language host which turn the signal will be for.
    pub(super) fn interrupt(&mut self, turn: u32) {
        if let (Some(session), None) = (&mut self.session, &self.ended) {
            session.interrupt_turn(turn);
        }
    }

    /// Signals it, and what runs in the foreground below it, once it was told.
    pub(super) fn signal(&mut self) {
        if let Some(turns) = self.turns().filter(|turns| turns.interrupting) {
            turns.interrupting = false;
            turns.again = Some(Instant::now() + AGAIN);
            // It leads a group of its own, and was not reaped yet: the number is no one else's.
            if self.ended.is_none() {
                let _ = kill_process_group(self.interpreter.pid, Signal::INT);
            }
        }
    }

    /// Signals it again, it alone: what runs below it has had its signal.
    pub(super) fn signal_again(&mut self) {
        let Some(due) = self.next_signal() else { return };
        let now = Instant::now();
        if due <= now {
            if let Some(turns) = self.turns() {
                turns.again = Some(now + AGAIN);
            }
            let _ = kill_process(self.interpreter.pid, Signal::INT);
        }
    }

    /// When that is due.
    pub(super) fn next_signal(&self) -> Option<Instant> {
        let turns = self.session.as_ref().and_then(|session| session.turns.as_ref());
        turns.filter(|_| self.ended.is_none()).and_then(|turns| turns.again)
    }

    /// When a turn has reported its end, what is in the pipes at that moment belongs to it.
    pub(super) fn look_what_is_owed(&mut self) {
        let Some(session) = &mut self.session else { return };
        let forwarded = !session.budget.is_exceeded();
        let Some(turns) = &mut session.turns else { return };
        if turns.has_reported() {
            let held = |pipe: &Option<OwnedFd>| {
                pipe.as_ref().filter(|_| forwarded).and_then(|pipe| rustix::io::ioctl_fionread(pipe).ok()).unwrap_or(0)
            };
            turns.owe(Owed { stdout: held(&self.interpreter.stdout), stderr: held(&self.interpreter.stderr) });
        }
    }

    /// Whether the end of a turn waits for something on this stream.
    pub(super) fn owes(&mut self, stream: Stream) -> bool {
        self.turns().is_some_and(|turns| turns.owes(stream))
    }

    fn turns(&mut self) -> Option<&mut Turns> {
        self.session.as_mut()?.turns.as_mut()
    }
}
