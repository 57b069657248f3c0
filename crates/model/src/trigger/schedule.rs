//! When a schedule fires: cron with a time zone.
//!
//! Five fields, minutes first. What changes of the clock do is croner's rule, which is that of Vixie cron: a pattern with
//! fixed minutes and hours runs once a day at most, whatever the clock does. A time that a change skips runs at the first
//! moment behind it, and a time that comes twice runs the first time. Patterns of intervals (`*/15 * * * *`) follow the
//! time that passes.

use std::fmt;

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{Zoned, tz::TimeZone};
use sha2::{Digest as _, Sha256};
use wire::Timestamp;

/// Bytes of a pattern.
const MAX_CRON: usize = 256;
/// Bytes of a time zone's name.
const MAX_ZONE: usize = 64;

/// A pattern that fires no more often than once a minute, and fires at all.
#[derive(Clone, PartialEq, Eq)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

/// Why a text is no schedule; which of its two parts, and why, in words that can stand behind the name of a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotASchedule {
    /// The pattern cannot be read.
    #[error("{0}")]
    Cron(String),
    /// There is no such time zone.
    #[error("must be a time zone of the IANA database, such as UTC or Europe/Berlin")]
    Zone,
    /// The pattern matches no moment.
    #[error("never fires")]
    Never,
}

impl Schedule {
    /// Reads a pattern and the name of a time zone. `now` is where the look for a first firing begins.
    pub fn new(cron: &str, zone: &str, now: Timestamp) -> Result<Self, NotASchedule> {
        let zone = time_zone(zone).ok_or(NotASchedule::Zone)?;
        if cron.len() > MAX_CRON {
            return Err(NotASchedule::Cron(format!("must be at most {MAX_CRON} bytes")));
        }
        // Seconds would let it fire more often than a session starts.
        let fields = cron.split_whitespace().count();
        if fields != 5 || !cron.is_ascii() {
            let why = "must be five fields: minute, hour, day of the month, month, day of the week";
            return Err(NotASchedule::Cron(why.to_owned()));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(cron).map_err(|error| NotASchedule::Cron(format!("is not a pattern: {error}")))?;
        let schedule = Self { cron, zone };
        if schedule.next(now).is_none() {
            return Err(NotASchedule::Never);
        }
        Ok(schedule)
    }

    /// The first firing behind this moment.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = jiff::Timestamp::from_millisecond(after.as_millis()).ok()?.to_zoned(self.zone.clone());
        let next: Zoned = self.cron.find_next_occurrence(&after, false).ok()?;
        Some(Timestamp::from_millis(next.timestamp().as_millisecond()))
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule").field("cron", &self.cron.as_str()).field("zone", &self.zone.iana_name()).finish()
    }
}

/// A zone by its name in the IANA database; the names of POSIX rules and of files are none.
fn time_zone(name: &str) -> Option<TimeZone> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'-' | b'+');
    let named = !name.is_empty() && name.len() <= MAX_ZONE && name.bytes().all(plain) && !name.starts_with('/');
    if named { TimeZone::get(name).ok() } else { None }
}

/// How long after its moment a firing starts: the same wherever it is asked, and spread over firings and triggers.
pub fn jitter(trigger: &str, due: Timestamp, most_ms: u64) -> u64 {
    if most_ms == 0 {
        return 0;
    }
    let digest = Sha256::digest(format!("enclave-jitter/1\n{trigger}\n{}", due.as_millis()));
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first) % most_ms.saturating_add(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    fn schedule(cron: &str, zone: &str) -> Schedule {
        Schedule::new(cron, zone, at("2026-01-01T00:00:00Z")).unwrap_or_else(|why| panic!("{cron} {zone}: {why}"))
    }

    /// The firings from one moment up to another.
    fn firings(schedule: &Schedule, from: &str, to: &str) -> Vec<String> {
        let (mut now, end) = (Timestamp::from_millis(at(from).as_millis() - 1), at(to));
        let mut found = Vec::new();
        while let Some(next) = schedule.next(now)
            && next < end
        {
            found.push(next.to_string().replace(":00.000Z", "Z"));
            now = next;
        }
        found
    }

    #[test]
    fn a_time_that_does_not_exist_runs_once_at_the_next_moment_that_does() {
        // On 2026-03-29 at 02:00 the clocks of Berlin go to 03:00, which is 01:00 UTC.
        let schedule = schedule("30 2 * * *", "Europe/Berlin");
        let found = firings(&schedule, "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z");
        assert_eq!(found, ["2026-03-28T01:30Z", "2026-03-29T01:00Z", "2026-03-30T00:30Z"]);
    }

    #[test]
    fn a_time_that_comes_twice_runs_once() {
        // On 2026-10-25 at 03:00 the clocks of Berlin go back to 02:00: 02:30 is at 00:30 and at 01:30 UTC.
        let schedule = schedule("30 2 * * *", "Europe/Berlin");
        let found = firings(&schedule, "2026-10-24T00:00:00Z", "2026-10-27T00:00:00Z");
        assert_eq!(found, ["2026-10-24T00:30Z", "2026-10-25T00:30Z", "2026-10-26T01:30Z"]);
    }

    #[test]
    fn intervals_follow_the_time_that_passes() {
        for day in ["2026-03-29", "2026-10-25"] {
            let schedule = schedule("*/30 * * * *", "Europe/Berlin");
            let found = firings(&schedule, &format!("{day}T00:00:00Z"), &format!("{day}T03:00:00Z"));
            assert_eq!(found.len(), 6, "{found:?}");
        }
    }

    #[test]
    fn zones_are_there_whatever_the_host_has() {
        for zone in ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia"] {
            schedule("0 9 * * mon-fri", zone);
        }
        for zone in ["", "Mars/Base", "../../etc/passwd", "/etc/localtime", "UTC0", "EST5EDT,M3.2.0", "a b", ":UTC"] {
            let refused = Schedule::new("* * * * *", zone, at("2026-01-01T00:00:00Z"));
            assert_eq!(refused, Err(NotASchedule::Zone), "{zone:?}");
        }
    }

    #[test]
    fn what_is_no_pattern_or_never_fires_is_refused() {
        let now = at("2026-01-01T00:00:00Z");
        for cron in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "x * * * *",
            "@daily",
            "* * * * * * *",
            "*\u{a0}* * * *",
        ] {
            let refused = Schedule::new(cron, "UTC", now);
            assert!(matches!(refused, Err(NotASchedule::Cron(_))), "{cron:?}: {refused:?}");
        }
        for cron in ["0 0 30 2 *", "0 0 31 4 *"] {
            assert_eq!(Schedule::new(cron, "UTC", now), Err(NotASchedule::Never), "{cron}");
        }
        assert_eq!(schedule("0 0 29 2 *", "UTC").next(now), Some(at("2028-02-29T00:00:00Z")));
    }

    #[test]
    fn jitter_is_the_same_for_a_firing_and_differs_between_them() {
        let due = at("2026-01-01T00:00:00Z");
        let of = |trigger: &str| jitter(trigger, due, 60_000);
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a"), of("b"));
        assert_eq!(jitter("a", due, 0), 0);
        assert!((0..1000).all(|n| jitter(&n.to_string(), due, 60_000) <= 60_000));
        let _ = jitter("a", due, u64::MAX);
    }

    proptest! {
        #[test]
        fn firings_go_on_and_are_a_minute_apart_at_least(
            minute in "(\\*|\\*/[1-9]|[0-5][0-9]|[0-9],[1-5][0-9])", hour in "(\\*|\\*/[2-9]|1?[0-9])",
            zone in "(UTC|Europe/Berlin|America/New_York|Australia/Lord_Howe|Africa/Casablanca)", start in 0_i64..50_000_000,
        ) {
            let mut now = Timestamp::from_millis(1_767_225_600_000 + start * 1000);
            let schedule = Schedule::new(&format!("{minute} {hour} * * *"), &zone, now);
            prop_assume!(schedule.is_ok());
            let schedule = schedule.unwrap();
            let mut last = None;
            for _ in 0..50 {
                let next = schedule.next(now).unwrap();
                prop_assert!(next > now);
                if let Some(last) = last {
                    prop_assert!(next.as_millis() - last >= 60_000, "{next}");
                }
                last = Some(next.as_millis());
                now = next;
            }
        }

        #[test]
        fn no_pattern_makes_the_parser_panic(cron in "[-*/,0-9a-zLW#? @]{0,24}", zone in ".{0,12}") {
            let _ = Schedule::new(&cron, &zone, Timestamp::from_millis(1_767_225_600_000));
        }
    }
}
