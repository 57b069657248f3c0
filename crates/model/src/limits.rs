//! Hard limits: what a session gets when it asks for nothing, and what it can't get whatever it asks.

use wire::FieldError;

const MIB: u64 = 1024 * 1024;

/// Limits of one session, every value decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// CPU rate in thousandths of a core; more is throttled.
    pub cpu_millis: u32,
    /// CPU time in milliseconds over all processes, user and system; unbounded when none. As a maximum below the ceiling
    /// it also bounds sessions that ask for nothing.
    pub cpu_time_ms: Option<u64>,
    /// Memory in bytes, page cache and shared memory included.
    pub memory_bytes: u64,
    /// Milliseconds from the start of the workload.
    pub wall_clock_ms: u64,
    /// Processes and threads at once.
    pub pids: u32,
    /// Bytes in `/workspace` and `/tmp` together.
    pub disk_bytes: u64,
    /// Bytes of stdout and stderr together.
    pub output_bytes: u64,
}

impl Default for Limits {
    /// The contract's defaults.
    fn default() -> Self {
        Self {
            cpu_millis: 1000,
            cpu_time_ms: None,
            memory_bytes: 512 * MIB,
            wall_clock_ms: 60_000,
            pids: 128,
            disk_bytes: 512 * MIB,
            output_bytes: 10 * MIB,
        }
    }
}

/// The least that a session can be given: below these a language host does not start.
pub const FLOOR: Limits = Limits {
    cpu_millis: 50,
    cpu_time_ms: Some(10),
    memory_bytes: 32 * MIB,
    wall_clock_ms: 10,
    pids: 16,
    disk_bytes: MIB,
    output_bytes: 1,
};

/// The most that a deployment gives unless its configuration says otherwise.
pub const CEILING: Limits = Limits {
    cpu_millis: 16_000,
    cpu_time_ms: Some(24 * 3_600_000),
    memory_bytes: 16 * 1024 * MIB,
    wall_clock_ms: 24 * 3_600_000,
    pids: 4096,
    disk_bytes: 64 * 1024 * MIB,
    output_bytes: 1024 * MIB,
};

impl Limits {
    /// Fills in defaults (lowered to `maxima` where those are lower) and refuses what is out of range, every fault at
    /// once.
    pub fn decide(asked: &wire::Limits, maxima: &Self, faults: &mut Vec<FieldError>) -> Self {
        let defaults = Self::default();
        let mut number = |field: &str, asked: Option<u64>, default: u64, floor: u64, max: u64| {
            let Some(value) = asked else { return default.min(max) };
            if value < floor {
                faults.push(FieldError::new(format!("limits.{field}"), format!("must be at least {floor}")));
            } else if value > max {
                faults.push(FieldError::new(format!("limits.{field}"), format!("must be at most {max}")));
            }
            value.clamp(floor.min(max), max)
        };
        let cpu_time_max = maxima.cpu_time_ms.unwrap_or(u64::MAX);
        let cpu_time_ms =
            asked.cpu_time_ms.map(|ms| number("cpuTimeMs", Some(ms), ms, FLOOR.cpu_time_ms.unwrap_or(0), cpu_time_max));
        // The default is no limit, which a deployment that has lowered the maximum does not give.
        let cpu_time_ms = cpu_time_ms.or(maxima.cpu_time_ms.filter(|max| Some(*max) < CEILING.cpu_time_ms));
        let memory_bytes =
            number("memoryBytes", asked.memory_bytes, defaults.memory_bytes, FLOOR.memory_bytes, maxima.memory_bytes);
        let wall_clock_ms = number(
            "wallClockMs",
            asked.wall_clock_ms,
            defaults.wall_clock_ms,
            FLOOR.wall_clock_ms,
            maxima.wall_clock_ms,
        );
        let pids = number(
            "pids",
            asked.pids.map(u64::from),
            u64::from(defaults.pids),
            u64::from(FLOOR.pids),
            u64::from(maxima.pids),
        );
        let disk_bytes =
            number("diskBytes", asked.disk_bytes, defaults.disk_bytes, FLOOR.disk_bytes, maxima.disk_bytes);
        let output_bytes =
            number("outputBytes", asked.output_bytes, defaults.output_bytes, FLOOR.output_bytes, maxima.output_bytes);
        Self {
            cpu_millis: cpu(asked.cpu, defaults.cpu_millis, maxima.cpu_millis, faults),
            cpu_time_ms,
            memory_bytes,
            wall_clock_ms,
            pids: u32::try_from(pids).unwrap_or(maxima.pids),
            disk_bytes,
            output_bytes,
        }
    }

    /// As the contract shows it.
    pub fn view(&self) -> wire::LimitsView {
        wire::LimitsView {
            cpu: f64::from(self.cpu_millis) / 1000.0,
            cpu_time_ms: self.cpu_time_ms,
            memory_bytes: self.memory_bytes,
            wall_clock_ms: self.wall_clock_ms,
            pids: self.pids,
            disk_bytes: self.disk_bytes,
            output_bytes: self.output_bytes,
        }
    }
}

fn cpu(asked: Option<f64>, default: u32, max: u32, faults: &mut Vec<FieldError>) -> u32 {
    let Some(cores) = asked else { return default.min(max) };
    let (least, most) = (f64::from(FLOOR.cpu_millis) / 1000.0, f64::from(max) / 1000.0);
    // Written so that NaN fails; JSON cannot carry it, but another caller might.
    if !(cores >= least && cores <= most) {
        faults.push(FieldError::new("limits.cpu", format!("must be from {least} to {most}")));
        return default.min(max);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked against the range just above")]
    let millis = (cores * 1000.0).round() as u32;
    millis
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decide(asked: &wire::Limits) -> (Limits, Vec<String>) {
        let mut faults = Vec::new();
        let limits = Limits::decide(asked, &CEILING, &mut faults);
        (limits, faults.into_iter().map(|fault| fault.field).collect())
    }

    #[test]
    fn nothing_asked_gives_the_contracts_defaults() {
        let (limits, faults) = decide(&wire::Limits::default());
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!(limits, Limits::default());
    }

    #[test]
    fn a_deployment_with_low_maxima_lowers_the_defaults_too() {
        let maxima = Limits { memory_bytes: 64 * MIB, wall_clock_ms: 1000, cpu_time_ms: Some(500), ..CEILING };
        let limits = Limits::decide(&wire::Limits::default(), &maxima, &mut Vec::new());
        assert_eq!((limits.memory_bytes, limits.wall_clock_ms, limits.cpu_time_ms), (64 * MIB, 1000, Some(500)));
    }

    #[test]
    fn absurd_limits_are_all_reported() {
        let (_, faults) = decide(&wire::Limits {
            cpu: Some(f64::INFINITY),
            cpu_time_ms: Some(0),
            memory_bytes: Some(u64::MAX),
            wall_clock_ms: Some(0),
            pids: Some(1),
            disk_bytes: Some(u64::MAX),
            output_bytes: Some(0),
        });
        for field in ["cpu", "cpuTimeMs", "memoryBytes", "wallClockMs", "pids", "diskBytes", "outputBytes"] {
            assert!(faults.contains(&format!("limits.{field}")), "{field} not in {faults:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_asked_stays_between_floor_and_maxima(
            cpu in proptest::option::of(any::<f64>()),
            memory in proptest::option::of(any::<u64>()),
            pids in proptest::option::of(any::<u32>()),
        ) {
            let asked = wire::Limits { cpu, memory_bytes: memory, pids, ..wire::Limits::default() };
            let (limits, _) = decide(&asked);
            prop_assert!((FLOOR.cpu_millis..=CEILING.cpu_millis).contains(&limits.cpu_millis));
            prop_assert!((FLOOR.memory_bytes..=CEILING.memory_bytes).contains(&limits.memory_bytes));
            prop_assert!((FLOOR.pids..=CEILING.pids).contains(&limits.pids));
        }
    }
}
