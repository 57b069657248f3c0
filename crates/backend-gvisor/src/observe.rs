//! What the platform says about a sandbox, turned into what the seam says. Pure.

use std::time::Duration;

use backend::{SandboxLimit, SandboxUsage, Termination};
use model::limits::Limits;
use protocol::DISK_TOLERANCE_BYTES;

use crate::{
    cgroup::{Counters, Memory},
    process::Exit,
    render::DISK_SLACK,
};

/// The shortest pause between two looks.
const LEAST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause while a session's limits are in force.
const MOST_PAUSE: Duration = Duration::from_millis(100);
/// The pause while nothing but memory has a limit.
pub(crate) const IDLE_PAUSE: Duration = Duration::from_secs(1);
/// How fast a disk may fill: the time to a possible overrun is counted with this.
const DISK_BYTES_PER_MS: u64 = 2 * 1024 * 1024;
/// The shortest pause for the disk's sake. A look costs a few microseconds.
const LEAST_DISK_PAUSE: Duration = Duration::from_millis(5);

/// A session's limits, and where its counting starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InForce {
    pub(crate) limits: Limits,
    /// CPU time that booting took.
    pub(crate) cpu_base_us: u64,
    /// How long one that is over its CPU time, its files or its memory is left to its driver.
    pub(crate) grace: Duration,
}

/// One look at a sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) counters: Counters,
    /// Bytes on the host's disk.
    pub(crate) disk_bytes: u64,
}

/// The limit that the sandbox is over, if any. Running out of memory or processes is one before a session's limits are
/// in force, too.
pub(crate) fn overrun(in_force: Option<&InForce>, reading: &Reading) -> Option<SandboxLimit> {
    if reading.counters.memory != Memory::Enough {
        return Some(SandboxLimit::Memory);
    }
    if reading.counters.forks_refused > 0 {
        return Some(SandboxLimit::Pids);
    }
    let InForce { limits, cpu_base_us, .. } = in_force?;
    if reading.disk_bytes > limits.disk_bytes.saturating_add(DISK_TOLERANCE_BYTES) {
        return Some(SandboxLimit::Disk);
    }
    let used_us = reading.counters.cpu_us.saturating_sub(*cpu_base_us);
    limits.cpu_time_ms.filter(|ms| used_us > ms.saturating_mul(1000)).map(|_| SandboxLimit::Cpu)
}

/// Whether a sandbox that was first seen over `limit` so long ago is to be ended now. What an honest sandbox cannot be over
/// is never left to anybody: files beyond what its disk holds. Nor is one in which the kernel has killed.
pub(crate) fn is_due(in_force: Option<&InForce>, reading: &Reading, limit: SandboxLimit, since: Duration) -> bool {
    let Some(InForce { limits, grace, .. }) = in_force else { return true };
    let most = limits.disk_bytes.saturating_add(DISK_SLACK).saturating_add(DISK_TOLERANCE_BYTES);
    let kernel = reading.counters.memory == Memory::Killed || reading.counters.forks_refused > 0;
    !limit.leaves_grace() || kernel || reading.disk_bytes > most || since >= *grace
}

/// When to look next: not later than a limit could be overrun from here.
pub(crate) fn pause(in_force: Option<&InForce>, reading: &Reading) -> Duration {
    let Some(InForce { limits, cpu_base_us, .. }) = in_force else { return IDLE_PAUSE };
    let room = limits.disk_bytes.saturating_sub(reading.disk_bytes);
    let disk = Duration::from_millis(room / DISK_BYTES_PER_MS).clamp(LEAST_DISK_PAUSE, MOST_PAUSE);
    let cpu = limits.cpu_time_ms.map_or(MOST_PAUSE, |ms| {
        let used_us = reading.counters.cpu_us.saturating_sub(*cpu_base_us);
        let left_us = ms.saturating_mul(1000).saturating_sub(used_us);
        let at_full_rate = left_us.saturating_mul(1000) / u64::from(limits.cpu_millis).max(1);
        Duration::from_micros(at_full_rate).clamp(LEAST_PAUSE, MOST_PAUSE)
    });
    disk.min(cpu)
}

/// What the sandbox used. The CPU time of booting is not the session's; the memory peak is the whole sandbox's, gVisor
/// itself and booting included, because it is what the limit counts against.
pub(crate) fn usage(in_force: Option<&InForce>, reading: &Reading) -> SandboxUsage {
    let base = in_force.map_or(reading.counters.cpu_us, |in_force| in_force.cpu_base_us);
    SandboxUsage {
        cpu_ms: reading.counters.cpu_us.saturating_sub(base) / 1000,
        memory_peak_bytes: reading.counters.memory_peak,
    }
}

/// What ended a sandbox first, where it was us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It went over a limit.
    Exceeded(SandboxLimit),
    /// Somebody asked for it.
    Killed,
}

/// How the sandbox ended, from what ended it, how its first process ended (none when that is not known), and what that
/// wrote for the operator.
pub(crate) fn termination(cause: Option<Cause>, exit: Option<Exit>, log: &str) -> Termination {
    match (cause, exit) {
        (Some(Cause::Exceeded(limit)), _) => Termination::Exceeded(limit),
        (Some(Cause::Killed), _) => Termination::Killed,
        (None, Some(Exit::Code(0))) => Termination::Exited,
        (None, exit) => {
            let how = match exit {
                Some(Exit::Code(code)) => format!("runsc exited with code {code}"),
                Some(Exit::Signal(signal)) => format!("runsc was ended by signal {signal}"),
                None => "runsc ended".to_owned(),
            };
            let log = log.trim();
            Termination::Lost(if log.is_empty() { how } else { format!("{how}: {log}") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn in_force() -> InForce {
        let limits = Limits { cpu_time_ms: Some(1000), disk_bytes: 64 * MIB, ..Limits::default() };
        InForce { limits, cpu_base_us: 200_000, grace: Duration::ZERO }
    }

    fn reading(cpu_us: u64, disk_bytes: u64) -> Reading {
        Reading { counters: Counters { cpu_us, ..Counters::default() }, disk_bytes }
    }

    #[test]
    fn limits_are_kept_up_to_their_last_unit() {
        let limits = in_force();
        assert_eq!(overrun(Some(&limits), &reading(1_200_000, 64 * MIB + DISK_TOLERANCE_BYTES)), None);
        assert_eq!(overrun(Some(&limits), &reading(1_200_001, 0)), Some(SandboxLimit::Cpu));
        assert_eq!(overrun(Some(&limits), &reading(0, 64 * MIB + DISK_TOLERANCE_BYTES + 1)), Some(SandboxLimit::Disk));
    }

    #[test]
    fn without_a_session_only_what_the_kernel_refused_counts() {
        assert_eq!(overrun(None, &reading(u64::MAX, u64::MAX)), None);
        let counters = Counters { memory: Memory::Short, forks_refused: 1, ..Counters::default() };
        assert_eq!(overrun(None, &Reading { counters, disk_bytes: 0 }), Some(SandboxLimit::Memory));
        let counters = Counters { forks_refused: 1, ..Counters::default() };
        assert_eq!(overrun(None, &Reading { counters, disk_bytes: 0 }), Some(SandboxLimit::Pids));
    }

    #[test]
    fn a_grace_is_for_cpu_time_files_and_memory_and_ends() {
        let second = Duration::from_secs(1);
        let limits = InForce { grace: second, ..in_force() };
        let over = reading(2_000_000, 64 * MIB + DISK_SLACK);
        for limit in [SandboxLimit::Cpu, SandboxLimit::Disk, SandboxLimit::Memory] {
            assert!(!is_due(Some(&limits), &over, limit, second / 2));
            assert!(is_due(Some(&limits), &over, limit, second));
            assert!(is_due(Some(&in_force()), &over, limit, Duration::ZERO), "without one");
            assert!(is_due(Some(&limits), &reading(0, 66 * MIB + DISK_SLACK), limit, Duration::ZERO), "no such disk");
            for (memory, due) in [(Memory::Killed, true), (Memory::Short, false)] {
                let counters = Counters { memory, ..Counters::default() };
                assert_eq!(is_due(Some(&limits), &Reading { counters, disk_bytes: 0 }, limit, Duration::ZERO), due);
            }
        }
        assert!(is_due(Some(&limits), &over, SandboxLimit::Pids, Duration::ZERO));
        assert!(is_due(None, &over, SandboxLimit::Memory, Duration::ZERO), "of nobody yet");
    }

    #[test]
    fn looks_come_closer_together_near_a_limit() {
        let mut limits = in_force();
        assert_eq!(pause(None, &reading(0, 0)), IDLE_PAUSE);
        limits.limits.disk_bytes = 1024 * MIB;
        assert_eq!(pause(Some(&limits), &reading(200_000, 0)), MOST_PAUSE);
        assert_eq!(pause(Some(&limits), &reading(1_150_000, 0)), Duration::from_millis(50));
        assert_eq!(pause(Some(&limits), &reading(1_199_000, 0)), LEAST_PAUSE);
        assert_eq!(pause(Some(&limits), &reading(0, 1024 * MIB)), LEAST_DISK_PAUSE);
    }

    #[test]
    fn more_cores_make_the_same_budget_last_shorter() {
        let mut limits = in_force();
        limits.limits.disk_bytes = 1024 * MIB;
        limits.limits.cpu_millis = 2000;
        assert_eq!(pause(Some(&limits), &reading(1_100_000, 0)), Duration::from_millis(50));
    }

    #[test]
    fn booting_is_not_the_sessions_cpu_time() {
        assert_eq!(usage(Some(&in_force()), &reading(1_200_999, 0)).cpu_ms, 1000);
        assert_eq!(usage(None, &reading(1_200_999, 0)).cpu_ms, 0);
    }

    #[test]
    fn the_first_cause_names_the_end() {
        let exceeded = Some(Cause::Exceeded(SandboxLimit::Disk));
        assert_eq!(termination(exceeded, Some(Exit::Code(0)), ""), Termination::Exceeded(SandboxLimit::Disk));
        assert_eq!(termination(Some(Cause::Killed), Some(Exit::Signal(9)), ""), Termination::Killed);
        assert_eq!(termination(None, Some(Exit::Code(0)), "noise"), Termination::Exited);
    }

    #[test]
    fn an_end_that_nobody_asked_for_says_what_is_known() {
        let lost = |text: &str| Termination::Lost(text.into());
        assert_eq!(termination(None, Some(Exit::Code(2)), " boom\n"), lost("runsc exited with code 2: boom"));
        assert_eq!(termination(None, Some(Exit::Signal(11)), ""), lost("runsc was ended by signal 11"));
        assert_eq!(termination(None, None, ""), lost("runsc ended"));
    }
}
