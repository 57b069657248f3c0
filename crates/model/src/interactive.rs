//! Bounds of interactive sessions: what one gets when it asks for nothing, and what it can't get whatever it asks.

use wire::{FieldError, KillReason};

/// Bounds of one interactive session, every value decided. As a deployment's maxima: the most of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interactive {
    /// Milliseconds without a turn that runs or waits.
    pub idle_ttl_ms: u64,
    /// Milliseconds from the start.
    pub max_lifetime_ms: u64,
    /// Milliseconds after which a turn is interrupted, unless it asks for less.
    pub turn_timeout_ms: u64,
    /// Milliseconds that all turns together may take; unbounded when none.
    pub turn_budget_ms: Option<u64>,
}

impl Default for Interactive {
    /// The contract's defaults.
    fn default() -> Self {
        Self { idle_ttl_ms: 300_000, max_lifetime_ms: 3_600_000, turn_timeout_ms: 60_000, turn_budget_ms: None }
    }
}

/// The least that can be asked for, of each: what a program gets at least, too.
pub const FLOOR_MS: u64 = 10;

/// The most that a deployment gives unless its configuration says otherwise: as long as a program may run at most.
pub const CEILING: Interactive = Interactive {
    idle_ttl_ms: 24 * 3_600_000,
    max_lifetime_ms: 24 * 3_600_000,
    turn_timeout_ms: 24 * 3_600_000,
    turn_budget_ms: Some(24 * 3_600_000),
};

impl Interactive {
    /// Fills in defaults (lowered to `maxima` where those are lower) and refuses what is out of range, every fault at
    /// once.
    pub fn decide(asked: &wire::Interactive, maxima: &Self, faults: &mut Vec<FieldError>) -> Self {
        let defaults = Self::default();
        let mut number = |field: &str, asked: u64, max: u64| {
            if asked < FLOOR_MS {
                faults.push(FieldError::new(format!("interactive.{field}"), format!("must be at least {FLOOR_MS}")));
            } else if asked > max {
                faults.push(FieldError::new(format!("interactive.{field}"), format!("must be at most {max}")));
            }
            asked.clamp(FLOOR_MS.min(max), max)
        };
        let mut bound = |field: &str, asked: Option<u64>, default: u64, max: u64| match asked {
            Some(asked) => number(field, asked, max),
            None => default.min(max),
        };
        Self {
            idle_ttl_ms: bound("idleTtlMs", asked.idle_ttl_ms, defaults.idle_ttl_ms, maxima.idle_ttl_ms),
            max_lifetime_ms: bound(
                "maxLifetimeMs",
                asked.max_lifetime_ms,
                defaults.max_lifetime_ms,
                maxima.max_lifetime_ms,
            ),
            turn_timeout_ms: bound(
                "turnTimeoutMs",
                asked.turn_timeout_ms,
                defaults.turn_timeout_ms,
                maxima.turn_timeout_ms,
            ),
            turn_budget_ms: asked
                .turn_budget_ms
                .map(|ms| bound("turnBudgetMs", Some(ms), ms, maxima.turn_budget_ms.unwrap_or(u64::MAX))),
        }
    }

    /// The time of a turn that asks for this much, if it may.
    pub fn turn_timeout(&self, asked: Option<u64>) -> Result<u64, FieldError> {
        match asked {
            None => Ok(self.turn_timeout_ms),
            Some(ms) if ms < FLOOR_MS => Err(FieldError::new("timeoutMs", format!("must be at least {FLOOR_MS}"))),
            Some(ms) if ms > self.turn_timeout_ms => {
                let most = self.turn_timeout_ms;
                Err(FieldError::new("timeoutMs", format!("must be at most {most}, the session's turnTimeoutMs")))
            }
            Some(ms) => Ok(ms),
        }
    }

    /// How long a session with these bounds lives when it may run for `wall_clock_ms`, and what has ended it then.
    pub fn life(&self, wall_clock_ms: u64) -> (u64, KillReason) {
        if wall_clock_ms < self.max_lifetime_ms {
            (wall_clock_ms, KillReason::WallClockExceeded)
        } else {
            (self.max_lifetime_ms, KillReason::MaxLifetimeExceeded)
        }
    }

    /// As the contract shows it.
    pub fn view(&self) -> wire::InteractiveView {
        wire::InteractiveView {
            idle_ttl_ms: self.idle_ttl_ms,
            max_lifetime_ms: self.max_lifetime_ms,
            turn_timeout_ms: self.turn_timeout_ms,
            turn_budget_ms: self.turn_budget_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(asked: wire::Interactive, maxima: &Interactive) -> (Interactive, Vec<String>) {
        let mut faults = Vec::new();
        let decided = Interactive::decide(&asked, maxima, &mut faults);
        (decided, faults.into_iter().map(|fault| fault.field).collect())
    }

    #[test]
    fn nothing_asked_gives_the_contracts_defaults_or_the_maxima_where_those_are_lower() {
        assert_eq!(decide(wire::Interactive::default(), &CEILING), (Interactive::default(), vec![]));
        let maxima = Interactive { idle_ttl_ms: 1000, ..CEILING };
        assert_eq!(decide(wire::Interactive::default(), &maxima).0.idle_ttl_ms, 1000);
    }

    #[test]
    fn bounds_out_of_range_are_all_told() {
        let asked = wire::Interactive {
            idle_ttl_ms: Some(0),
            max_lifetime_ms: Some(u64::MAX),
            turn_timeout_ms: Some(9),
            turn_budget_ms: Some(u64::MAX),
        };
        let told = ["idleTtlMs", "maxLifetimeMs", "turnTimeoutMs", "turnBudgetMs"];
        assert_eq!(decide(asked, &CEILING).1, told.map(|field| format!("interactive.{field}")));
    }

    #[test]
    fn a_turn_gets_at_most_the_sessions_time() {
        let bounds = Interactive { turn_timeout_ms: 500, ..Interactive::default() };
        assert_eq!((bounds.turn_timeout(None), bounds.turn_timeout(Some(10))), (Ok(500), Ok(10)));
        assert_eq!(bounds.turn_timeout(Some(501)).unwrap_err().field, "timeoutMs");
        assert_eq!(bounds.turn_timeout(Some(9)).unwrap_err().field, "timeoutMs");
    }

    #[test]
    fn a_life_ends_with_the_first_of_its_two_bounds() {
        let bounds = Interactive::default();
        assert_eq!(bounds.life(1000), (1000, KillReason::WallClockExceeded));
        assert_eq!(bounds.life(bounds.max_lifetime_ms), (bounds.max_lifetime_ms, KillReason::MaxLifetimeExceeded));
    }
}
