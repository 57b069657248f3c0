//! The host's control groups: where they are mounted, and one group per sandbox in them.
//!
//! Version 2 is the normal case. Version 1 has one tree per controller and other file names; where an (almost) empty
//! version 2 tree is mounted beside it, that one is used as well, because it can kill a whole group at once. The rest
//! of the crate sees [`Cgroups`] and [`Group`] and does not know which it is.
//!
//! All groups of an instance are in one group of its own, `enclave-<instance>`, so they can be listed after a crash.

mod file;
mod layout;
mod v1;
mod v2;

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use backend::SandboxId;
use rustix::{fd::OwnedFd, process::Pid};

use crate::process;

pub(crate) use layout::{Layout, unescape};

/// Length of the period over which the CPU rate is kept, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// Between two looks at a group that should become empty.
const EMPTYING_PAUSE: Duration = Duration::from_millis(1);

/// Why there is no place for our groups.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Neither version is mounted with what is needed.
    #[error(
        "no cgroup tree with the controllers {missing}; mount cgroup v2 (mount -t cgroup2 none /sys/fs/cgroup) or boot \
         with systemd.unified_cgroup_hierarchy=1"
    )]
    Missing {
        /// The controllers that were not found.
        missing: String,
    },
    /// The list of mounts cannot be read.
    #[error("read the list of mounts")]
    Mounts(#[source] io::Error),
    /// This process may not make its own group.
    #[error(
        "{step} at {}; run as root outside of a container, or give the server a delegated subtree (systemd: Delegate=yes \
         and DelegateSubgroup=server) and name it as the cgroup parent", path.display()
    )]
    Refused {
        /// What was tried.
        step: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// What a group may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caps {
    /// Memory without swap, in bytes.
    pub(crate) memory_bytes: u64,
    /// Memory beyond it for what is still to be done when it has run out. With none, the kernel kills then.
    pub(crate) reserve_bytes: u64,
    /// CPU rate in thousandths of a core.
    pub(crate) cpu_millis: u32,
    /// Processes and threads of the host.
    pub(crate) pids: u32,
}

/// What a group has used, and what it was refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// CPU time in microseconds.
    pub(crate) cpu_us: u64,
    /// Highest memory use so far, in bytes.
    pub(crate) memory_peak: u64,
    /// What has become of it at its own memory limit.
    pub(crate) memory: Memory,
    /// Forks that were refused for its limit of processes.
    pub(crate) forks_refused: u64,
}

/// How a group stands to its memory limit. The worse, the greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Memory {
    /// Below it.
    #[default]
    Enough,
    /// Over it, and held back: nothing was killed.
    Short,
    /// Over it and its reserve, if it had any: the kernel has killed a process of it.
    Killed,
}

/// How a new process gets into a group.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// The directory of version 2 that it is made in.
    pub(crate) born_in: Option<OwnedFd>,
    /// The files of version 1 that it writes `0` to while it has a single thread. Those for whole processes would do too,
    /// but they make the kernel wait for every processor.
    pub(crate) doors: Vec<OwnedFd>,
}

/// A step on a group that failed, named by the file.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) step: &'static str,
    pub(crate) source: io::Error,
}

/// The place for all groups of one instance.
#[derive(Debug, Clone)]
pub(crate) enum Cgroups {
    V1(v1::Tree),
    V2(v2::Tree),
}

impl Cgroups {
    /// Makes the instance's own group in every tree.
    pub(crate) fn open(layout: Layout, parent: Option<&Path>, instance: &str) -> Result<Self, CgroupError> {
        let name = PathBuf::from(format!("enclave-{instance}"));
        let below = parent.map_or(name.clone(), |parent| parent.join(name));
        match layout {
            Layout::V1(roots) => v1::Tree::open(&roots, &below).map(Self::V1),
            Layout::V2(root) => v2::Tree::open(&root, &below).map(Self::V2),
        }
    }

    /// Finds the host's layout and opens the instance's groups in it.
    pub(crate) fn find(parent: Option<&Path>, instance: &str) -> Result<Self, CgroupError> {
        Self::open(Layout::find()?, parent, instance)
    }

    /// `v1` or `v2`, for people.
    pub(crate) fn version(&self) -> &'static str {
        match self {
            Self::V1(_) => "v1",
            Self::V2(_) => "v2",
        }
    }

    /// Whether memory that is swapped out counts, so that a limit of memory is one.
    pub(crate) fn bounds_swap(&self) -> bool {
        match self {
            Self::V1(tree) => tree.bounds_swap(),
            Self::V2(_) => true,
        }
    }

    /// The group of one sandbox, whether it exists or not.
    pub(crate) fn group(&self, id: &SandboxId) -> Group {
        match self {
            Self::V1(tree) => Group::V1(tree.group(id)),
            Self::V2(tree) => Group::V2(tree.group(id)),
        }
    }

    /// The sandboxes that have a group in any tree.
    pub(crate) fn list(&self) -> io::Result<Vec<SandboxId>> {
        let mut ids = Vec::new();
        for dir in self.dirs() {
            for entry in std::fs::read_dir(dir)? {
                ids.extend(entry?.file_name().to_str().and_then(|name| name.parse().ok()));
            }
        }
        Ok(ids)
    }

    /// Removes the instance's own groups, if no sandbox is in them.
    pub(crate) fn remove(&self) {
        for dir in self.dirs() {
            // Not empty, or gone: both are fine.
            let _ = std::fs::remove_dir(dir);
        }
    }

    fn dirs(&self) -> Vec<&Path> {
        match self {
            Self::V1(tree) => tree.dirs(),
            Self::V2(tree) => vec![tree.dir()],
        }
    }
}

/// The group of one sandbox.
#[derive(Debug, Clone)]
pub(crate) enum Group {
    V1(v1::Group),
    V2(v2::Group),
}

impl Group {
    /// Makes it.
    pub(crate) fn create(&self) -> Result<(), Failed> {
        for dir in self.dirs() {
            std::fs::create_dir(dir).map_err(|source| Failed { step: "create cgroup", source })?;
        }
        Ok(())
    }

    /// Puts limits into force.
    pub(crate) fn limit(&self, caps: &Caps) -> Result<(), Failed> {
        match self {
            Self::V1(group) => group.limit(caps),
            Self::V2(group) => group.limit(caps),
        }
    }

    /// Lets those that wait for memory have the reserve; what is beyond that the kernel kills for.
    pub(crate) fn open_reserve(&self, caps: &Caps) -> Result<(), Failed> {
        match self {
            Self::V1(group) => group.open_reserve(caps),
            // Open from the start, for a process that is slow enough.
            Self::V2(_) => Ok(()),
        }
    }

    /// The way into it.
    pub(crate) fn entry(&self) -> io::Result<Entry> {
        let unified = self.unified();
        let born_in = unified.map(|dir| std::fs::File::open(dir).map(OwnedFd::from)).transpose()?;
        let others = self.dirs().into_iter().filter(|dir| Some(*dir) != unified);
        let doors = others.map(|dir| file::open_to_write(&dir.join("tasks")).map(OwnedFd::from));
        Ok(Entry { born_in, doors: doors.collect::<Result<_, _>>()? })
    }

    /// Stops its processes, or lets them go on. Not where there is no tree of version 2: there, what is frozen cannot be
    /// killed.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<(), Failed> {
        self.unified().map_or(Ok(()), |dir| file::write_if_there(dir, "cgroup.freeze", u8::from(frozen)))
    }

    /// What it has used so far.
    pub(crate) fn counters(&self) -> io::Result<Counters> {
        match self {
            Self::V1(group) => group.counters(),
            Self::V2(group) => group.counters(),
        }
    }

    /// Becomes readable when the group may have run out of memory; the counters say whether it has.
    pub(crate) fn alarm(&self) -> io::Result<OwnedFd> {
        match self {
            Self::V1(group) => group.alarm(),
            Self::V2(group) => group.alarm(),
        }
    }

    /// Its processes now. None when there is no group.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        let dir = match self {
            Self::V1(group) => group.members(),
            Self::V2(group) => group.dir(),
        };
        pids(dir)
    }

    /// Sends SIGKILL to every process in it, and again to what those forked meanwhile, until it is empty or time is
    /// up. Says whether it is empty.
    pub(crate) fn kill(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            match self {
                Self::V1(group) => group.kill_once(),
                Self::V2(group) => group.kill_once(),
            }
            // Killed processes are members until their memory is freed.
            while Instant::now() < deadline {
                if self.is_empty() {
                    return true;
                }
                std::thread::sleep(EMPTYING_PAUSE);
                if self.can_still_fork() {
                    break;
                }
            }
            if Instant::now() >= deadline {
                return self.is_empty();
            }
        }
    }

    /// Whether no process is in any of its trees.
    pub(crate) fn is_empty(&self) -> bool {
        self.dirs().into_iter().all(|dir| pids(dir).is_empty())
    }

    /// Whether killing leaves a moment in which a process may fork and get away.
    fn can_still_fork(&self) -> bool {
        match self {
            Self::V1(group) => !group.kills_at_once(),
            Self::V2(group) => !group.kills_at_once(),
        }
    }

    /// Removes it where it is empty, groups below it included.
    pub(crate) fn remove(&self) {
        for dir in self.dirs() {
            file::remove_tree(dir);
        }
    }

    /// The directories of it that still exist.
    pub(crate) fn remains(&self) -> Vec<PathBuf> {
        self.dirs().into_iter().filter(|dir| dir.exists()).map(Path::to_owned).collect()
    }

    /// Whether the line of `/proc/PID/cgroup` for version 2 names this group. For a dead process that is all there is.
    pub(crate) fn is_unified_path_of(&self, cgroups: &str) -> bool {
        let name = self.dirs().first().and_then(|dir| dir.file_name()?.to_str()).unwrap_or_default();
        cgroups.lines().filter_map(|line| line.strip_prefix("0::")).any(|path| path.ends_with(&format!("/{name}")))
    }

    /// Its directory in the tree of version 2, if there is one.
    fn unified(&self) -> Option<&Path> {
        match self {
            Self::V1(group) => group.unified(),
            Self::V2(group) => Some(group.dir()),
        }
    }

    fn dirs(&self) -> Vec<&Path> {
        match self {
            Self::V1(group) => group.dirs(),
            Self::V2(group) => vec![group.dir()],
        }
    }
}

/// The processes in one directory. A process that is being replaced may be listed as 0: it is of another namespace.
fn pids(dir: &Path) -> Vec<Pid> {
    let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect()
}

/// Kills the members of a directory one by one. A process id that was reused meanwhile is not hit: a process is killed
/// by the descriptor that was taken before its membership was looked at a second time.
fn kill_members(dir: &Path) {
    let found: Vec<_> = pids(dir).into_iter().filter_map(|pid| Some((pid, process::open(pid).ok()?))).collect();
    let still = pids(dir);
    for (_, descriptor) in found.iter().filter(|(pid, _)| still.contains(pid)) {
        // Dead already is as good.
        let _ = process::kill(descriptor);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A version 2 tree of plain files, with the group of one sandbox.
    pub(crate) fn fake(root: &Path, id: &SandboxId) -> Cgroups {
        let dir = root.join(id.as_str());
        std::fs::create_dir(&dir).unwrap();
        for (name, text) in [
            ("cgroup.procs", ""),
            ("cgroup.kill", ""),
            ("cpu.stat", "usage_usec 5000\n"),
            ("memory.peak", "1048576\n"),
            ("memory.events", "oom 0\noom_kill 0\n"),
            ("pids.events", "max 0\n"),
        ] {
            std::fs::write(dir.join(name), text).unwrap();
        }
        Cgroups::V2(v2::Tree::at(root))
    }

    pub(crate) fn run_out_of_memory(root: &Path, id: &SandboxId) {
        std::fs::write(root.join(id.as_str()).join("memory.events"), "oom 1\noom_kill 1\n").unwrap();
    }

    #[test]
    fn a_group_is_known_by_its_own_name_in_the_unified_line_alone() {
        let tree = v2::Tree::at(Path::new("/cg/enclave-a"));
        let id = SandboxId::from_bits(1);
        let group = Group::V2(tree.group(&id));
        assert!(group.is_unified_path_of(&format!("4:memory:/\n0::/enclave-a/{id}\n")));
        for other in [format!("0::/enclave-a/{id}/x"), format!("4:memory:/enclave-a/{id}"), "0::/".into()] {
            assert!(!group.is_unified_path_of(&other), "{other}");
        }
    }

    #[test]
    fn only_sandboxes_are_listed() {
        let root = tempfile::tempdir().unwrap();
        let cgroups = Cgroups::V2(v2::Tree::at(root.path()));
        let id = SandboxId::from_bits(9);
        for name in [id.as_str(), "enclave", "sbx-1"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        std::fs::write(root.path().join("cgroup.procs"), "").unwrap();
        assert_eq!(cgroups.list().unwrap(), [id]);
    }
}
