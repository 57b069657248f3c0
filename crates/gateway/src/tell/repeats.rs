//! Which refusals were told already. A program that tries the same thing in a loop is one event, and a number now and
//! then; one that tries something else each time is told of up to a point, and then only counted.

use std::{collections::HashMap, time::Duration};

use model::egress::Reason;
use tokio::time::Instant;
use wire::AuditSource;

/// Refusals that are told apart in a session's life.
pub(super) const MAX_DISTINCT: usize = 1000;
/// How long repeats are only counted, at first. It doubles each time, so that a loop over many different refusals
/// cannot keep the log busy either.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(640);

/// What makes two refusals the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) attempted: String,
    pub(super) reason: Reason,
    pub(super) source: AuditSource,
}

/// What to do about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Tell it.
    First,
    /// It is counted.
    Again,
    /// It is counted, as all that follow; tell that.
    OneTooMany,
}

#[derive(Debug, Default)]
pub(super) struct Repeats {
    known: HashMap<Key, Known>,
    /// Refusals past the limit.
    uncounted: u64,
}

#[derive(Debug)]
struct Known {
    /// Not told yet.
    count: u64,
    due: Instant,
    pause: Duration,
}

impl Repeats {
    pub(super) fn hear(&mut self, key: Key, now: Instant) -> Heard {
        if let Some(known) = self.known.get_mut(&key) {
            known.count += 1;
            return Heard::Again;
        }
        if self.known.len() >= MAX_DISTINCT {
            self.uncounted += 1;
            return if self.uncounted == 1 { Heard::OneTooMany } else { Heard::Again };
        }
        self.known.insert(key, Known { count: 0, due: now + FIRST_PAUSE, pause: FIRST_PAUSE });
        Heard::First
    }

    /// What is to be told again now, and how often it was.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(Key, u64)> {
        let mut due = Vec::new();
        for (key, known) in &mut self.known {
            if known.count > 0 && known.due <= now {
                due.push((key.clone(), std::mem::take(&mut known.count)));
                known.pause = (known.pause * 2).min(LONGEST_PAUSE);
                known.due = now + known.pause;
            }
        }
        due
    }

    /// All that was not told, and how many refusals were past the limit.
    pub(super) fn rest(&mut self) -> (Vec<(Key, u64)>, u64) {
        let told = |(key, known): (&Key, &mut Known)| {
            let count = std::mem::take(&mut known.count);
            (count > 0).then(|| (key.clone(), count))
        };
        (self.known.iter_mut().filter_map(told).collect(), std::mem::take(&mut self.uncounted))
    }
}
