//! The turns of an interactive session, seen from the runner: one at a time, each ended by a report of the language host.
//!
//! A report is the program's own word. It ends the turn that runs, and nothing else: what comes for another is dropped.

use std::time::{Duration, Instant};

use protocol::{Stream, Turn, Turned};

/// What the host has got wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnError {
    /// There is no interactive session that has started.
    None,
    /// The one before has not ended.
    Busy,
    /// Its number does not follow.
    Number,
}

impl std::fmt::Display for TurnError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => write!(f, "the host sent a turn to a session that takes none"),
            Self::Busy => write!(f, "the host sent a turn while another one runs"),
            Self::Number => write!(f, "the host sent a turn whose number does not follow"),
        }
    }
}

/// A turn that runs.
#[derive(Debug)]
struct Running {
    number: u32,
    /// What the language host has reported, and the bytes on stdout and stderr that are from before.
    report: Option<Vec<u8>>,
    owed: Owed,
}

/// Bytes of the two streams that are still to be forwarded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Owed {
    pub(crate) stdout: u64,
    pub(crate) stderr: u64,
}

impl Owed {
    fn of(&mut self, stream: Stream) -> &mut u64 {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// Who gets a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The language host and what runs in the foreground below it.
    Group,
    /// The language host alone.
    Host,
}

/// Something that is due again and again, after twice the time each time.
#[derive(Debug)]
pub(crate) struct Reminder {
    due: Instant,
    after: Duration,
}

impl Reminder {
    /// Due after this time.
    pub(crate) fn new(after: Duration) -> Self {
        Self { due: Instant::now() + after, after }
    }

    /// When it is due.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Is due once more, after so much time at most.
    pub(crate) fn postpone(&mut self, most: Duration) {
        *self = Self::new((self.after * 2).min(most));
    }
}

/// The state of the turns.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    last: u32,
    running: Option<Running>,
    /// Who is to be signalled once the language host has been told what for: it expects one signal for each time.
    pub(crate) interrupting: Option<Whom>,
    /// When to remind the turn of its interrupt, should it go on.
    pub(crate) reminder: Option<Reminder>,
    /// A report has come, and nobody has looked yet what the pipes held then.
    reported: bool,
}

impl Turns {
    /// Begins a turn.
    pub(crate) fn begin(&mut self, turn: &Turn) -> Result<(), TurnError> {
        if self.running.is_some() {
            return Err(TurnError::Busy);
        }
        if turn.number <= self.last {
            return Err(TurnError::Number);
        }
        self.last = turn.number;
        self.running = Some(Running { number: turn.number, report: None, owed: Owed::default() });
        Ok(())
    }

    /// The turn that runs, as far as is known.
    pub(crate) fn number(&self) -> Option<u32> {
        self.running.as_ref().filter(|running| running.report.is_none()).map(|running| running.number)
    }

    /// Notes that this turn is to be interrupted. Whether there is something to be told to the language host: the turn runs,
    /// and it is not being told already.
    pub(crate) fn interrupt(&mut self, number: u32, whom: Whom) -> bool {
        let tell = self.number() == Some(number) && self.interrupting.is_none();
        if tell {
            self.interrupting = Some(whom);
        }
        tell
    }

    /// Takes a report.
    pub(crate) fn hear(&mut self, turned: Turned) {
        let running = self.running.as_mut().filter(|running| running.number == turned.number);
        if let Some(running) = running.filter(|running| running.report.is_none()) {
            running.report = Some(turned.report);
            (self.reported, self.reminder) = (true, None);
        }
    }

    /// Whether a report has come since this was last asked: what the pipes hold now is of that turn.
    pub(crate) fn has_reported(&mut self) -> bool {
        std::mem::take(&mut self.reported)
    }

    /// Notes what they hold.
    pub(crate) fn owe(&mut self, owed: Owed) {
        if let Some(running) = &mut self.running {
            running.owed = owed;
        }
    }

    /// Whether there is something on this stream that the end of a turn waits for.
    pub(crate) fn owes(&mut self, stream: Stream) -> bool {
        self.running.as_mut().is_some_and(|running| *running.owed.of(stream) > 0)
    }

    /// Notes that so much of the stream was forwarded; `None`: that there is no more.
    pub(crate) fn forwarded(&mut self, stream: Stream, count: Option<usize>) {
        if let Some(running) = &mut self.running {
            let owed = running.owed.of(stream);
            *owed = count.map_or(0, |count| owed.saturating_sub(count as u64));
        }
    }

    /// The turn that has ended and owes nothing any more.
    pub(crate) fn finish(&mut self) -> Option<Turned> {
        let ended = |running: &mut Running| running.report.is_some() && running.owed == Owed::default();
        if self.reported {
            return None;
        }
        let Running { number, report, .. } = self.running.take_if(ended)?;
        (self.interrupting, self.reminder) = (None, None);
        Some(Turned { number, report: report? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(number: u32) -> Turn {
        Turn { number, code: String::new() }
    }

    fn turned(number: u32) -> Turned {
        Turned { number, report: b"{}".into() }
    }

    #[test]
    fn turns_come_one_at_a_time_and_in_order() {
        let mut turns = Turns::default();
        assert_eq!(turns.begin(&turn(0)), Err(TurnError::Number));
        turns.begin(&turn(2)).expect("the first");
        assert_eq!(turns.begin(&turn(3)), Err(TurnError::Busy));
        turns.hear(turned(2));
        assert!(turns.has_reported());
        assert_eq!(turns.begin(&turn(3)), Err(TurnError::Busy));
        assert_eq!(turns.finish(), Some(turned(2)));
        assert_eq!(turns.begin(&turn(2)), Err(TurnError::Number));
        turns.begin(&turn(3)).expect("the next");
    }

    #[test]
    fn a_report_ends_the_turn_that_runs_and_no_other() {
        let mut turns = Turns::default();
        turns.hear(turned(1));
        turns.begin(&turn(1)).expect("the first");
        turns.hear(turned(2));
        assert!(!turns.has_reported() && turns.finish().is_none() && turns.number() == Some(1));
        turns.hear(turned(1));
        turns.hear(Turned { number: 1, report: b"another".into() });
        assert!(turns.has_reported() && turns.number().is_none());
        assert_eq!(turns.finish(), Some(turned(1)));
        assert_eq!(turns.finish(), None);
    }

    #[test]
    fn only_the_turn_that_runs_is_interrupted_and_one_signal_comes_for_each_time_it_is_told() {
        let mut turns = Turns::default();
        assert!(!turns.interrupt(1, Whom::Group));
        turns.begin(&turn(1)).expect("the first");
        assert!(!turns.interrupt(2, Whom::Group));
        assert!(turns.interrupt(1, Whom::Group) && !turns.interrupt(1, Whom::Host));
        assert_eq!(turns.interrupting.take(), Some(Whom::Group));
        assert!(turns.interrupt(1, Whom::Host));
        turns.hear(turned(1));
        assert!(turns.has_reported() && turns.finish().is_some());
        assert_eq!((turns.interrupting, turns.interrupt(1, Whom::Group)), (None, false));
    }

    #[test]
    fn an_end_waits_for_what_the_pipes_held_and_no_longer() {
        let mut turns = Turns::default();
        turns.begin(&turn(1)).expect("the first");
        turns.hear(turned(1));
        assert_eq!(turns.finish(), None, "nobody has looked yet");
        assert!(turns.has_reported());
        turns.owe(Owed { stdout: 3, stderr: 1 });
        turns.forwarded(Stream::Stdout, Some(2));
        assert!(turns.finish().is_none() && turns.owes(Stream::Stdout));
        turns.forwarded(Stream::Stdout, Some(9));
        assert!(turns.finish().is_none() && !turns.owes(Stream::Stdout));
        turns.forwarded(Stream::Stderr, None);
        assert_eq!(turns.finish(), Some(turned(1)));
    }
}
