//! The turns of an interactive session: begun, interrupted, and what has to be forwarded before one has ended.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use protocol::{Language, Stream, Turn};
use rustix::process::{Signal, kill_process, kill_process_group};

use super::{End, Supervisor};
use crate::turns::{Owed, TurnError, Turns, Whom};

/// Until a turn that goes on in spite of its interrupt is interrupted again: Node takes no notice of a signal that comes in
/// the moment between reading a turn and beginning it, or starting a child and waiting for it. Python sees each, and lets
/// the program handle it.
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

    /// Signals whom it was told for.
    pub(super) fn signal(&mut self) {
        let again = (self.launch.language == Language::Node).then(|| Instant::now() + AGAIN);
        let Some(turns) = self.turns() else { return };
        let Some(whom) = turns.interrupting.take() else { return };
        turns.again = again;
        if self.ended.is_none() {
            // It leads a group of its own, and was not reaped yet: the number is no one else's.
            let _ = match whom {
                Whom::Group => kill_process_group(self.interpreter.pid, Signal::INT),
                Whom::Host => kill_process(self.interpreter.pid, Signal::INT),
            };
        }
    }

    /// Interrupts it again, when that is due.
    pub(super) fn interrupt_again(&mut self) {
        if self.next_interrupt().is_some_and(|due| due <= Instant::now())
            && let Some(session) = &mut self.session
        {
            session.interrupt_again();
        }
    }

    /// When that is due.
    pub(super) fn next_interrupt(&self) -> Option<Instant> {
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
