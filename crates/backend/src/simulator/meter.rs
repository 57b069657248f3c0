//! What a modelled sandbox used, and the limits that the backend itself watches.

use std::time::Duration;

use model::{Language, limits::Limits};
use tokio::time::Instant;

use crate::{Observation, SandboxLimit, SandboxUsage};

const MIB: u64 = 1024 * 1024;

/// The accounting of one sandbox.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    limits: Limits,
    /// CPU time that the program has used since it was started, in microseconds. Booting is nobody's.
    burnt_us: u64,
    burning: Option<Burn>,
    memory_held: u64,
    memory_peak: u64,
    disk_held: u64,
    exceeded: Option<SandboxLimit>,
}

/// CPU time that is being used right now.
#[derive(Clone, Copy, Debug)]
struct Burn {
    since: Instant,
    /// CPU time after which it stops.
    most_us: u64,
}

/// What becomes of a program that burns CPU time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Burning {
    /// How long until it is done, or until the limit; none is for ever.
    pub(super) wall: Option<Duration>,
    /// Whether the limit comes first.
    pub(super) runs_out: bool,
}

impl Meter {
    /// A sandbox whose language host has just started.
    pub(super) fn boot(language: Language, disk_bytes: u64) -> Self {
        let memory = match language {
            Language::Python => 9 * MIB,
            Language::Node => 25 * MIB,
        };
        Self {
            limits: Limits { disk_bytes, ..Limits::default() },
            burnt_us: 0,
            burning: None,
            memory_held: memory,
            memory_peak: memory,
            disk_held: 0,
            exceeded: None,
        }
    }

    /// Puts limits into force. The size of the disk was decided at boot.
    pub(super) fn limit(&mut self, limits: &Limits) {
        self.limits = Limits { disk_bytes: self.limits.disk_bytes, ..*limits };
    }

    /// Even a program that does nothing costs a few milliseconds and pages, decided by `salt`.
    pub(super) fn start(&mut self, salt: u64) {
        self.burnt_us += 1_000 + salt % 4_000;
        self.memory_held += (salt >> 32) % 256 * 4096;
        self.memory_peak = self.memory_peak.max(self.memory_held);
    }

    /// Takes memory and keeps it.
    pub(super) fn allocate(&mut self, bytes: u64) -> Result<(), SandboxLimit> {
        let wanted = self.memory_held.saturating_add(bytes);
        self.memory_held = wanted.min(self.limits.memory_bytes);
        self.memory_peak = self.memory_peak.max(self.memory_held);
        self.check(wanted > self.limits.memory_bytes, SandboxLimit::Memory)
    }

    /// Writes to files, and keeps them.
    pub(super) fn fill(&mut self, bytes: u64) -> Result<(), SandboxLimit> {
        let wanted = self.disk_held.saturating_add(bytes);
        self.disk_held = wanted.min(self.limits.disk_bytes);
        self.check(wanted > self.limits.disk_bytes, SandboxLimit::Disk)
    }

    /// Takes room for a file of the host's, if there is so much.
    pub(super) fn take_room(&mut self, bytes: u64) -> bool {
        let fits = self.has_room(bytes);
        if fits {
            self.disk_held += bytes;
        }
        fits
    }

    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.disk_held.saturating_add(bytes) <= self.limits.disk_bytes
    }

    /// Gives back what a file took.
    pub(super) fn give_room(&mut self, bytes: u64) {
        self.disk_held = self.disk_held.saturating_sub(bytes);
    }

    /// Begins to burn CPU time, for ever when none is named.
    pub(super) fn ignite(&mut self, cpu: Option<Duration>, now: Instant) -> Burning {
        let wanted = cpu.map_or(u64::MAX, |cpu| u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX));
        let left = self.limits.cpu_time_ms.map_or(u64::MAX, |ms| ms.saturating_mul(1000).saturating_sub(self.burnt_us));
        let most_us = wanted.min(left);
        self.burning = Some(Burn { since: now, most_us });
        let rate = u128::from(self.limits.cpu_millis.max(1));
        let wall_us = (u128::from(most_us) * 1000).div_ceil(rate);
        let wall = u64::try_from(wall_us).ok().filter(|_| most_us < u64::MAX).map(Duration::from_micros);
        Burning { wall, runs_out: wanted > left }
    }

    /// The burning came to its end, by itself or at the limit: all of it was used.
    pub(super) fn burnt_out(&mut self, burning: Burning) -> Result<(), SandboxLimit> {
        if let Some(burn) = self.burning.take() {
            self.burnt_us = self.burnt_us.saturating_add(burn.most_us);
        }
        self.check(burning.runs_out, SandboxLimit::Cpu)
    }

    /// Stops counting: the sandbox has ended.
    pub(super) fn freeze(&mut self, now: Instant) {
        self.burnt_us = self.burnt_by(now);
        self.burning = None;
    }

    /// What was used so far.
    pub(super) fn observe(&self, now: Instant) -> Observation {
        Observation {
            usage: SandboxUsage { cpu_ms: self.burnt_by(now) / 1000, memory_peak_bytes: self.memory_peak },
            exceeded: self.exceeded,
        }
    }

    fn burnt_by(&self, now: Instant) -> u64 {
        let running = self.burning.map_or(0, |burn| {
            let wall_us = now.saturating_duration_since(burn.since).as_micros();
            let cpu_us = wall_us * u128::from(self.limits.cpu_millis) / 1000;
            u64::try_from(cpu_us).unwrap_or(u64::MAX).min(burn.most_us)
        });
        self.burnt_us.saturating_add(running)
    }

    fn check(&mut self, over: bool, limit: SandboxLimit) -> Result<(), SandboxLimit> {
        if !over {
            return Ok(());
        }
        self.exceeded.get_or_insert(limit);
        Err(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(limits: Limits) -> Meter {
        let mut meter = Meter::boot(Language::Python, MIB);
        meter.limit(&limits);
        meter
    }

    #[test]
    fn the_last_byte_within_a_limit_is_allowed_and_the_next_is_not() {
        let mut meter = meter(Limits { memory_bytes: 10 * MIB, ..Limits::default() });
        assert_eq!(meter.allocate(MIB), Ok(()));
        assert_eq!(meter.allocate(1), Err(SandboxLimit::Memory));
        assert_eq!(meter.fill(MIB), Ok(()));
        assert_eq!(meter.fill(1), Err(SandboxLimit::Disk));
        let seen = meter.observe(Instant::now());
        assert_eq!((seen.exceeded, seen.usage.memory_peak_bytes), (Some(SandboxLimit::Memory), 10 * MIB));
    }

    #[test]
    fn cpu_time_passes_at_the_rate_and_stops_at_the_limit() {
        let mut meter = meter(Limits { cpu_millis: 500, cpu_time_ms: Some(300), ..Limits::default() });
        let start = Instant::now();
        let burning = meter.ignite(Some(Duration::from_millis(100)), start);
        assert_eq!(burning, Burning { wall: Some(Duration::from_millis(200)), runs_out: false });
        assert_eq!(meter.observe(start + Duration::from_millis(50)).usage.cpu_ms, 25);
        assert_eq!(meter.observe(start + Duration::from_secs(9)).usage.cpu_ms, 100);
        assert_eq!(meter.burnt_out(burning), Ok(()));
        let burning = meter.ignite(None, start);
        assert_eq!(burning, Burning { wall: Some(Duration::from_millis(400)), runs_out: true });
        assert_eq!(meter.burnt_out(burning), Err(SandboxLimit::Cpu));
        assert_eq!(meter.observe(start).usage.cpu_ms, 300);
    }

    #[test]
    fn without_a_limit_on_cpu_time_a_spin_has_no_end_and_is_still_counted() {
        let mut meter = meter(Limits { cpu_millis: 2000, ..Limits::default() });
        let start = Instant::now();
        assert_eq!(meter.ignite(None, start), Burning { wall: None, runs_out: false });
        meter.freeze(start + Duration::from_millis(70));
        assert_eq!(meter.observe(start + Duration::from_secs(70)).usage.cpu_ms, 140);
    }
}
