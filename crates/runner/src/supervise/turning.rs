//! The turns of an interactive session: begun, interrupted, and what has to be forwarded before one has ended.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use protocol::{Language, Stream, Turn};
use rustix::process::{Signal, kill_process, kill_process_group};

use super::{End, Supervisor};
use crate::turns::{Owed, Reminder, TurnError, Turns, Whom};

/// Until a turn that goes on in spite of its interrupt is reminded of it. Node takes no notice of a signal that comes in the
/// moment between reading a turn and beginning it, or starting a child and waiting for it. Python notes each, but between
/// two of its instructions only: one that comes in front of a system call is not seen before that returns.
const AGAIN: Duration = Duration::from_millis(100);
/// It is reminded less and less often, down to once in this time.
const AT_MOST: Duration = Duration::from_secs(1);

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
            session.interrupt_turn(turn, Whom::Group);
        }
    }

    /// Signals whom it was told for.
    pub(super) fn signal(&mut self) {
        let Some(turns) = self.turns() else { return };
        let Some(whom) = turns.interrupting.take() else { return };
        if whom == Whom::Group {
            turns.reminder = Some(Reminder::new(AGAIN));
        }
        if self.ended.is_none() {
            // It leads a group of its own, and was not reaped yet: the number is no one else's.
            let _ = match whom {
                Whom::Group => kill_process_group(self.interpreter.pid, Signal::INT),
                Whom::Host => kill_process(self.interpreter.pid, Signal::INT),
            };
        }
    }

    /// Reminds the turn of its interrupt, when that is due: the language host alone, what runs below it has had its signal.
    pub(super) fn remind(&mut self) {
        if self.next_reminder().is_none_or(|due| due > Instant::now()) {
            return;
        }
        let Some(session) = &mut self.session else { return };
        let Some(turns) = &mut session.turns else { return };
        if let Some(reminder) = &mut turns.reminder {
            reminder.postpone(AT_MOST);
        }
        match (self.launch.language, turns.number()) {
            // Python has noted that there was an interrupt. Another signal makes it look, and interrupts nothing twice.
            (Language::Python, Some(_)) => {
                let _ = kill_process(self.interpreter.pid, Signal::URG);
            }
            (Language::Node, Some(number)) => session.interrupt_turn(number, Whom::Host),
            (_, None) => {}
        }
    }

    /// When that is due.
    pub(super) fn next_reminder(&self) -> Option<Instant> {
        let turns = self.session.as_ref().and_then(|session| session.turns.as_ref());
        turns.filter(|_| self.ended.is_none())?.reminder.as_ref().map(Reminder::due)
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
