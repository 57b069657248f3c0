//! cgroup version 2: one tree.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use backend::SandboxId;
use rustix::fs::inotify;

use super::{CPU_PERIOD_US, Caps, CgroupError, Counters, Failed, Memory, file, file::Table, kill_members};

/// What is switched on for the groups of sandboxes.
const CONTROLLERS: &str = "+cpu +memory +pids";

/// The instance's own group.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    base: PathBuf,
}

/// The group of one sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    dir: PathBuf,
}

impl Tree {
    pub(super) fn open(root: &Path, below: &Path) -> Result<Self, CgroupError> {
        let refused = |step, path: &Path, source| CgroupError::Refused { step, path: path.to_owned(), source };
        let base = root.join(below);
        fs::create_dir_all(&base).map_err(|source| refused("create cgroup", &base, source))?;
        // From the root down to our own group, which never holds a process itself.
        let mut dir = root.to_owned();
        for name in std::iter::once(Path::new("")).chain(below.iter().map(Path::new)) {
            dir.push(name);
            enable(&dir).map_err(|source| refused("switch on controllers", &dir, source))?;
        }
        Ok(Self { base })
    }

    pub(super) fn group(&self, id: &SandboxId) -> Group {
        Group { dir: self.base.join(id.as_str()) }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.base
    }

    #[cfg(test)]
    pub(super) fn at(base: &Path) -> Self {
        Self { base: base.to_owned() }
    }
}

/// Switches the controllers on for the groups below, unless they are.
fn enable(dir: &Path) -> io::Result<()> {
    let on = fs::read_to_string(dir.join("cgroup.subtree_control"))?;
    let is_on = |name: &str| on.split_whitespace().any(|there| there == name);
    if CONTROLLERS.split(' ').all(|wanted| is_on(wanted.trim_start_matches('+'))) {
        return Ok(());
    }
    file::write(dir, "cgroup.subtree_control", CONTROLLERS).map_err(|failed| failed.source)
}

impl Group {
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn limit(&self, caps: &Caps) -> Result<(), Failed> {
        file::write(&self.dir, "memory.max", caps.memory_bytes.saturating_add(caps.reserve_bytes))?;
        if caps.reserve_bytes > 0 {
            // From here on the kernel makes whoever asks for more sleep.
            file::write(&self.dir, "memory.high", caps.memory_bytes)?;
        }
        file::write_if_there(&self.dir, "memory.swap.max", 0)?;
        // One killed process of a sandbox is the end of it anyway.
        file::write_if_there(&self.dir, "memory.oom.group", 1)?;
        let quota = u64::from(caps.cpu_millis) * CPU_PERIOD_US / 1000;
        file::write(&self.dir, "cpu.max", format_args!("{quota} {CPU_PERIOD_US}"))?;
        file::write(&self.dir, "pids.max", caps.pids)
    }

    pub(super) fn counters(&self) -> io::Result<Counters> {
        // memory.peak came with 5.19; before, the highest of all looks is kept by the caller.
        let peak = file::number(&self.dir, "memory.peak").or_else(|_| file::number(&self.dir, "memory.current"))?;
        Ok(Counters {
            cpu_us: file::field(&self.dir, "cpu.stat", "usage_usec")?,
            memory_peak: peak,
            memory: self.memory()?,
            forks_refused: file::field(&self.dir, "pids.events", "max")?,
        })
    }

    fn memory(&self) -> io::Result<Memory> {
        // Counts this limit alone: kills for the host's own want of memory are only in oom_kill.
        let events = Table::read(&self.dir, "memory.events")?;
        if events.field("oom")? > 0 {
            return Ok(Memory::Killed);
        }
        if events.field("high")? == 0 {
            return Ok(Memory::Enough);
        }
        // That alone says little: files that are only cached are over it for as long as it takes to let go of them.
        let stat = Table::read(&self.dir, "memory.stat")?;
        let cached = stat.field("file")?.saturating_sub(stat.field("shmem")?);
        let held = file::number(&self.dir, "memory.current")?.saturating_sub(cached);
        let is_short = held >= file::number(&self.dir, "memory.high")?;
        Ok(if is_short { Memory::Short } else { Memory::Enough })
    }

    pub(super) fn alarm(&self) -> io::Result<OwnedFd> {
        let bell = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&bell, self.dir.join("memory.events"), inotify::WatchFlags::MODIFY)?;
        Ok(bell)
    }

    pub(super) fn kills_at_once(&self) -> bool {
        // Kernels from 5.14 on. Without the group there is nothing to kill either.
        !self.dir.exists() || self.dir.join("cgroup.kill").exists()
    }

    pub(super) fn kill_once(&self) {
        if file::write(&self.dir, "cgroup.kill", 1).is_ok() {
            return;
        }
        // Frozen processes cannot fork, but can be killed. Where freezing fails, repeating is what is left.
        let _ = file::write_if_there(&self.dir, "cgroup.freeze", 1);
        kill_members(&self.dir);
        let _ = file::write_if_there(&self.dir, "cgroup.freeze", 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dir: &Path, name: &str) -> String {
        fs::read_to_string(dir.join(name)).unwrap()
    }

    #[test]
    fn controllers_are_switched_on_from_the_root_down_and_only_where_they_are_off() {
        let root = tempfile::tempdir().unwrap();
        let below = Path::new("a/enclave-1");
        fs::create_dir_all(root.path().join(below)).unwrap();
        for (dir, on) in [("", "cpuset cpu memory pids io"), ("a", "memory"), ("a/enclave-1", "")] {
            fs::write(root.path().join(dir).join("cgroup.subtree_control"), on).unwrap();
        }
        let tree = Tree::open(root.path(), below).unwrap();
        assert_eq!(read(root.path(), "cgroup.subtree_control"), "cpuset cpu memory pids io");
        assert_eq!(read(root.path(), "a/cgroup.subtree_control"), CONTROLLERS);
        assert_eq!(read(tree.dir(), "cgroup.subtree_control"), CONTROLLERS);
    }

    #[test]
    fn a_tree_that_is_not_ours_is_refused_with_the_way_out() {
        let root = tempfile::tempdir().unwrap();
        let error = Tree::open(root.path(), Path::new("enclave-1")).unwrap_err();
        assert!(error.to_string().contains("Delegate=yes"), "{error}");
    }

    #[test]
    fn limits_and_counters_go_to_and_come_from_their_files() {
        let root = tempfile::tempdir().unwrap();
        let group = Tree::at(root.path()).group(&SandboxId::from_bits(1));
        let dir = group.dir();
        fs::create_dir(dir).unwrap();
        for (name, text) in [
            ("memory.max", ""),
            ("memory.oom.group", ""),
            ("cpu.max", ""),
            ("pids.max", ""),
            ("cpu.stat", "usage_usec 123\nuser_usec 100\n"),
            ("memory.current", "42\n"),
            ("memory.high", ""),
            ("memory.stat", "anon 10\nfile 30\nshmem 20\n"),
            ("memory.events", "low 0\nhigh 0\nmax 7\noom 0\noom_kill 1\n"),
            ("pids.events", "max 0\n"),
        ] {
            fs::write(dir.join(name), text).unwrap();
        }
        let caps = Caps { memory_bytes: 1 << 27, reserve_bytes: 0, cpu_millis: 1500, pids: 9 };
        group.limit(&caps).unwrap();
        assert_eq!((read(dir, "memory.max").as_str(), read(dir, "memory.high").as_str()), ("134217728", ""));
        assert_eq!(read(dir, "memory.oom.group"), "1");
        assert_eq!(read(dir, "cpu.max"), "150000 100000");
        assert_eq!(read(dir, "pids.max"), "9");
        let counters = Counters { cpu_us: 123, memory_peak: 42, memory: Memory::Enough, forks_refused: 0 };
        assert_eq!(group.counters().unwrap(), counters);
        fs::write(dir.join("memory.events"), "oom 1\noom_kill 1\n").unwrap();
        fs::write(dir.join("memory.peak"), "99\n").unwrap();
        let after = group.counters().unwrap();
        assert_eq!(after.memory, Memory::Killed);
        assert_eq!(after.memory_peak, 99);
        group.limit(&Caps { reserve_bytes: 1, ..caps }).unwrap();
        assert_eq!((read(dir, "memory.max").as_str(), read(dir, "memory.high").as_str()), ("134217729", "134217728"));
        fs::write(dir.join("memory.events"), "high 3\noom 0\n").unwrap();
        for (current, memory) in [(134_217_728 + 9, Memory::Enough), (134_217_728 + 10, Memory::Short)] {
            fs::write(dir.join("memory.current"), format!("{current}\n")).unwrap();
            assert_eq!(group.counters().unwrap().memory, memory, "10 of {current} bytes are cached files");
        }
    }
}
