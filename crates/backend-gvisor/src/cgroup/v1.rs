//! cgroup version 1: one tree per controller.

use std::{
    fs,
    io::{self, Write as _},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use backend::SandboxId;
use rustix::event::EventfdFlags;

use super::{
    CPU_PERIOD_US, Caps, CgroupError, Counters, Failed, Memory, file, file::Table, kill_members, layout::Roots,
};

/// Memory and swap together; there only where the kernel counts swap.
const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
/// The least quota that the kernel takes, in microseconds.
const LEAST_QUOTA_US: u64 = 1000;

/// How close to the limit the peak must have been for a kill to be the limit's doing: the kernel counts the peak in
/// batches. A process of this group that the host killed for its own want of memory is not an overrun.
const PEAK_SLACK: u64 = 2 * 1024 * 1024;

/// What the kernel takes from a group in one go, for a few processors: so close to the limit it is full.
const FULL_SLACK: u64 = 512 * 1024;

/// The instance's own group in every tree.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    base: Dirs,
}

/// The group of one sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    dirs: Dirs,
}

#[derive(Debug, Clone)]
struct Dirs {
    cpu: PathBuf,
    cpuacct: PathBuf,
    memory: PathBuf,
    pids: PathBuf,
    freezer: Option<PathBuf>,
    /// In a version 2 tree that can kill a group at once.
    unified: Option<PathBuf>,
}

impl Dirs {
    fn join(&self, below: impl AsRef<Path>) -> Self {
        let below = below.as_ref();
        Self {
            cpu: self.cpu.join(below),
            cpuacct: self.cpuacct.join(below),
            memory: self.memory.join(below),
            pids: self.pids.join(below),
            freezer: self.freezer.as_ref().map(|dir| dir.join(below)),
            unified: self.unified.as_ref().map(|dir| dir.join(below)),
        }
    }

    /// Each directory once. The first knows of dead processes too, if there is such a tree.
    fn all(&self) -> Vec<&Path> {
        let named = [&self.pids, &self.memory, &self.cpu, &self.cpuacct];
        let mut dirs: Vec<&Path> = Vec::with_capacity(6);
        for dir in self.unified.iter().chain(named).chain(&self.freezer) {
            if !dirs.contains(&dir.as_path()) {
                dirs.push(dir);
            }
        }
        dirs
    }
}

impl Tree {
    pub(super) fn open(roots: &Roots, below: &Path) -> Result<Self, CgroupError> {
        let roots = Dirs {
            cpu: roots.cpu.clone(),
            cpuacct: roots.cpuacct.clone(),
            memory: roots.memory.clone(),
            pids: roots.pids.clone(),
            freezer: roots.freezer.clone(),
            unified: roots.unified.clone(),
        };
        let mut base = roots.join(below);
        for dir in base.all() {
            fs::create_dir_all(dir).map_err(|source| CgroupError::Refused {
                step: "create cgroup",
                path: dir.to_owned(),
                source,
            })?;
        }
        if let Some(dir) = base.unified.take_if(|dir| !dir.join("cgroup.kill").exists()) {
            // Kernels before 5.14. Nothing else is wanted of that tree; what stays there would only be an empty directory.
            let _ = fs::remove_dir(dir);
        }
        Ok(Self { base })
    }

    /// Whether the kernel bounds memory and swap together.
    pub(super) fn bounds_swap(&self) -> bool {
        self.base.memory.join(WITH_SWAP).exists()
    }

    pub(super) fn group(&self, id: &SandboxId) -> Group {
        Group { dirs: self.base.join(id.as_str()) }
    }

    pub(super) fn dirs(&self) -> Vec<&Path> {
        self.base.all()
    }
}

impl Group {
    pub(super) fn dirs(&self) -> Vec<&Path> {
        self.dirs.all()
    }

    /// Its directory in the tree of version 2, if there is one.
    pub(super) fn unified(&self) -> Option<&Path> {
        self.dirs.unified.as_deref()
    }

    /// The directory whose list of processes is asked.
    pub(super) fn members(&self) -> &Path {
        self.unified().unwrap_or(&self.dirs.pids)
    }

    pub(super) fn limit(&self, caps: &Caps) -> Result<(), Failed> {
        self.limit_memory(caps.memory_bytes)?;
        if caps.reserve_bytes > 0 {
            // What runs out of memory waits.
            file::write(&self.dirs.memory, "memory.oom_control", 1)?;
        }
        let quota = (u64::from(caps.cpu_millis) * CPU_PERIOD_US / 1000).max(LEAST_QUOTA_US);
        file::write(&self.dirs.cpu, "cpu.cfs_period_us", CPU_PERIOD_US)?;
        file::write(&self.dirs.cpu, "cpu.cfs_quota_us", quota)?;
        file::write(&self.dirs.pids, "pids.max", caps.pids)
    }

    pub(super) fn open_reserve(&self, caps: &Caps) -> Result<(), Failed> {
        self.limit_memory(caps.memory_bytes.saturating_add(caps.reserve_bytes))?;
        file::write(&self.dirs.memory, "memory.oom_control", 0)
    }

    /// Memory and swap together may never be below memory alone, so raising and lowering go in different orders.
    fn limit_memory(&self, bytes: u64) -> Result<(), Failed> {
        const MEMORY: &str = "memory.limit_in_bytes";
        let dir = &self.dirs.memory;
        match file::write(dir, MEMORY, bytes) {
            Err(failed) if failed.source.raw_os_error() == Some(libc::EINVAL) => {
                file::write(dir, WITH_SWAP, bytes)?;
                file::write(dir, MEMORY, bytes)?;
            }
            other => other?,
        }
        // Without swap accounting, the next best is to ask that nothing be swapped out.
        file::write_if_there(dir, WITH_SWAP, bytes)?;
        file::write_if_there(dir, "memory.swappiness", 0)
    }

    pub(super) fn counters(&self) -> io::Result<Counters> {
        let memory_peak = file::number(&self.dirs.memory, "memory.max_usage_in_bytes")?;
        Ok(Counters {
            cpu_us: file::number(&self.dirs.cpuacct, "cpuacct.usage")? / 1000,
            memory_peak,
            memory: self.memory(memory_peak)?,
            forks_refused: file::field(&self.dirs.pids, "pids.events", "max")?,
        })
    }

    fn memory(&self, peak: u64) -> io::Result<Memory> {
        let dir = &self.dirs.memory;
        let limit = file::number(dir, "memory.limit_in_bytes")?;
        let control = Table::read(dir, "memory.oom_control")?;
        if control.field("oom_kill")? > 0 && peak.saturating_add(PEAK_SLACK) >= limit {
            return Ok(Memory::Killed);
        }
        if control.field("under_oom")? > 0 {
            return Ok(Memory::Short);
        }
        // Where nothing may be killed, some page faults do not wait either: they are taken again and again, and nobody is told.
        let is_full = |usage: u64| usage.saturating_add(FULL_SLACK) >= limit;
        if control.field("oom_kill_disable")? == 0 || !is_full(file::number(dir, "memory.usage_in_bytes")?) {
            return Ok(Memory::Enough);
        }
        let stat = Table::read(dir, "memory.stat")?;
        let cached = stat.field("cache")?.saturating_sub(stat.field("shmem")?);
        Ok(if cached < FULL_SLACK { Memory::Short } else { Memory::Enough })
    }

    pub(super) fn alarm(&self) -> io::Result<OwnedFd> {
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let control = fs::File::open(self.dirs.memory.join("memory.oom_control"))?;
        let wiring = format!("{} {}", bell.as_raw_fd(), control.as_raw_fd());
        file::open_to_write(&self.dirs.memory.join("cgroup.event_control"))?.write_all(wiring.as_bytes())?;
        Ok(bell)
    }

    pub(super) fn kills_at_once(&self) -> bool {
        self.dirs.unified.is_some()
    }

    pub(super) fn kill_once(&self) {
        if let Some(unified) = &self.dirs.unified {
            // Gone already is as good.
            let _ = file::write(unified, "cgroup.kill", 1);
            return;
        }
        // Frozen processes cannot fork while the others are killed; they die when they are thawed. Where freezing
        // fails, repeating is what is left.
        let freeze = |state: &str| self.dirs.freezer.as_deref().map(|dir| file::write(dir, "freezer.state", state));
        freeze("FROZEN");
        kill_members(&self.dirs.pids);
        freeze("THAWED");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(root: &Path) -> (Tree, Group) {
        let dir = |name: &str| root.join(name);
        let base = Dirs {
            cpu: dir("cpu"),
            cpuacct: dir("cpu"),
            memory: dir("memory"),
            pids: dir("pids"),
            freezer: None,
            unified: None,
        };
        let tree = Tree { base };
        let group = tree.group(&SandboxId::from_bits(1));
        for dir in group.dirs() {
            fs::create_dir_all(dir).unwrap();
        }
        for (dir, name, text) in [
            (&group.dirs.cpu, "cpu.cfs_period_us", ""),
            (&group.dirs.cpu, "cpu.cfs_quota_us", ""),
            (&group.dirs.cpu, "cpuacct.usage", "1500000\n"),
            (&group.dirs.memory, "memory.limit_in_bytes", "100000000\n"),
            (&group.dirs.memory, "memory.memsw.limit_in_bytes", ""),
            (&group.dirs.memory, "memory.max_usage_in_bytes", "50000000\n"),
            (&group.dirs.memory, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            (&group.dirs.pids, "pids.max", ""),
            (&group.dirs.pids, "pids.events", "max 3\n"),
        ] {
            fs::write(dir.join(name), text).unwrap();
        }
        (tree, group)
    }

    #[test]
    fn trees_that_are_mounted_together_are_one_directory() {
        let root = tempfile::tempdir().unwrap();
        let (tree, group) = tree(root.path());
        assert_eq!(tree.dirs().len(), 3);
        assert_eq!(group.dirs().len(), 3);
    }

    #[test]
    fn every_limit_reaches_its_file() {
        let root = tempfile::tempdir().unwrap();
        let (_, group) = tree(root.path());
        let caps = Caps { memory_bytes: 64_000_000, reserve_bytes: 0, cpu_millis: 250, pids: 77 };
        group.limit(&caps).unwrap();
        let read = |dir: &Path, name: &str| fs::read_to_string(dir.join(name)).unwrap();
        assert!(read(&group.dirs.memory, "memory.limit_in_bytes").starts_with("64000000"));
        assert_eq!(read(&group.dirs.memory, "memory.memsw.limit_in_bytes"), "64000000");
        assert_eq!(read(&group.dirs.cpu, "cpu.cfs_quota_us"), "25000");
        assert_eq!(read(&group.dirs.pids, "pids.max"), "77");
        assert!(read(&group.dirs.memory, "memory.oom_control").starts_with("oom_kill_disable 0"), "the kernel kills");
    }

    #[test]
    fn with_a_reserve_what_runs_out_waits_until_it_is_opened() {
        let root = tempfile::tempdir().unwrap();
        let (_, group) = tree(root.path());
        let caps = Caps { memory_bytes: 64_000_000, reserve_bytes: 2_000_000, cpu_millis: 250, pids: 77 };
        let read = |name: &str| fs::read_to_string(group.dirs.memory.join(name)).unwrap();
        group.limit(&caps).unwrap();
        assert!(read("memory.limit_in_bytes").starts_with("64000000"));
        assert!(read("memory.oom_control").starts_with("1om_kill_disable"), "only the first byte was written over");
        group.open_reserve(&caps).unwrap();
        assert!(read("memory.limit_in_bytes").starts_with("66000000"));
        assert!(read("memory.oom_control").starts_with('0'));
        fs::write(group.dirs.memory.join("memory.oom_control"), "under_oom 1\noom_kill 0\n").unwrap();
        assert_eq!(group.counters().unwrap().memory, Memory::Short);
    }

    #[test]
    fn what_is_full_and_told_nobody_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let (_, group) = tree(root.path());
        let write = |name: &str, text: &str| fs::write(group.dirs.memory.join(name), text).unwrap();
        for (kills, usage, cache, memory) in [
            (false, 99_999_744, 5_100_000, Memory::Short),
            (true, 99_999_744, 5_100_000, Memory::Enough),
            (false, 99_000_000, 5_100_000, Memory::Enough),
            (false, 99_999_744, 6_000_000, Memory::Enough),
        ] {
            write("memory.oom_control", if kills { "oom_kill_disable 0\n" } else { "oom_kill_disable 1\n" });
            write("memory.usage_in_bytes", &format!("{usage}\n"));
            write("memory.stat", &format!("cache {cache}\nrss 9\nshmem 5000000\n"));
            assert_eq!(group.counters().unwrap().memory, memory, "{kills} {usage} {cache}");
        }
    }

    #[test]
    fn a_kill_far_below_the_limit_is_not_the_limits_doing() {
        let root = tempfile::tempdir().unwrap();
        let (_, group) = tree(root.path());
        let counters = group.counters().unwrap();
        assert_eq!(counters.cpu_us, 1500);
        assert_eq!(counters.forks_refused, 3);
        assert_eq!(counters.memory, Memory::Enough);
        fs::write(group.dirs.memory.join("memory.max_usage_in_bytes"), "99999744\n").unwrap();
        assert_eq!(group.counters().unwrap().memory, Memory::Killed);
    }
}
