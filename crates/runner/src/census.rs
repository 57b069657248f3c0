//! How many processes and threads the workload has: the kernel's count where the sandbox has a pids cgroup, else
//! our own from /proc.
//!
//! The cgroup also stops the workload a little above its limit, so that a fork bomb cannot outrun the watch. Without
//! one an overrun is only reported, and the backend must not claim more.

use std::{
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::Pid;

use crate::processes::Processes;

/// How far above the limit the cgroup lets the workload go: an overrun must be seen to be reported.
const SLACK: u32 = 8;
/// Between two looks at a workload that is far from its limit...
const CALM: Duration = Duration::from_millis(50);
/// ...and at one that has used up half of it.
const NEAR: Duration = Duration::from_millis(5);
/// Counting by hand reads every process's state, so it is done less often.
const BY_HAND: Duration = Duration::from_millis(100);

/// The workload's own pids cgroup, a child of the one that the backend named.
#[derive(Debug)]
pub(crate) struct Cgroup {
    dir: PathBuf,
    current: std::fs::File,
}

impl Cgroup {
    /// Makes it.
    pub(crate) fn create(parent: &Path) -> io::Result<Self> {
        let dir = parent.join("workload");
        std::fs::create_dir(&dir)?;
        let current = std::fs::File::open(dir.join("pids.current"))?;
        Ok(Self { dir, current })
    }

    /// Moves a process, all its threads, and with them all that it will start.
    pub(crate) fn admit(&self, process: Pid) -> io::Result<()> {
        std::fs::write(self.dir.join("cgroup.procs"), process.as_raw_nonzero().to_string())
    }

    /// Where whoever writes a zero moves itself.
    pub(crate) fn entrance(&self) -> io::Result<std::fs::File> {
        std::fs::File::options().write(true).open(self.dir.join("cgroup.procs"))
    }

    fn limit(&self, pids: u32) -> io::Result<()> {
        std::fs::write(self.dir.join("pids.max"), pids.to_string())
    }

    fn count(&self) -> io::Result<u32> {
        let mut text = [0; 16];
        let len = self.current.read_at(&mut text, 0)?;
        let text = std::str::from_utf8(&text[..len]).unwrap_or_default();
        text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
    }
}

/// Watches the count of one run.
#[derive(Debug)]
pub(crate) struct Census {
    limit: u32,
    cgroup: Option<Cgroup>,
    processes: Processes,
    last: Instant,
    /// None once an overrun was found: once is enough.
    pause: Option<Duration>,
}

impl Census {
    /// Sets the limit, which holds from now on.
    pub(crate) fn start(limit: u32, cgroup: Option<Cgroup>, processes: Processes, now: Instant) -> io::Result<Self> {
        if let Some(cgroup) = &cgroup {
            cgroup.limit(limit.saturating_add(SLACK))?;
        }
        Ok(Self { limit, cgroup, processes, last: now, pause: Some(NEAR) })
    }

    /// Where the workload is counted, if not by hand.
    pub(crate) fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }

    /// When to look next, if ever.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.pause.map(|pause| self.last + pause)
    }

    /// Whether to look now: it is time, or something happened and looking is cheap.
    pub(crate) fn looks(&self, now: Instant, something_happened: bool) -> bool {
        let cheap = self.cgroup.is_some() && now.duration_since(self.last) > NEAR / 4;
        self.due().is_some_and(|due| now >= due || (something_happened && cheap))
    }

    /// Looks: are there more than there may be? Says so once.
    pub(crate) fn is_exceeded(&mut self, now: Instant) -> bool {
        let exceeded = self.look(now);
        if exceeded {
            self.pause = None;
        }
        exceeded
    }

    fn look(&mut self, now: Instant) -> bool {
        self.last = now;
        let count = match &self.cgroup {
            Some(cgroup) => match cgroup.count() {
                Ok(count) => count,
                // A limit that can no longer be watched counts as overrun rather than as kept.
                Err(_) => return true,
            },
            None => self.processes.count(),
        };
        self.pause = Some(match &self.cgroup {
            Some(_) if count > self.limit / 2 => NEAR,
            Some(_) => CALM,
            None => BY_HAND,
        });
        count > self.limit
    }

    /// Lets nothing new be forked any more: what is killed now stays killed.
    pub(crate) fn close(&self) {
        if let Some(cgroup) = &self.cgroup {
            // The killing is repeated until nothing is left, with or without this.
            let _ = cgroup.limit(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(dir: &Path, current: &str) -> Cgroup {
        std::fs::create_dir(dir.join("workload")).expect("creates");
        std::fs::write(dir.join("workload/pids.current"), current).expect("writes");
        let current = std::fs::File::open(dir.join("workload/pids.current")).expect("opens");
        Cgroup { dir: dir.join("workload"), current }
    }

    #[test]
    fn the_limit_itself_is_kept_and_one_more_is_an_overrun() {
        let dir = tempfile::tempdir().expect("creates");
        let now = Instant::now();
        let mut census =
            Census::start(20, Some(cgroup(dir.path(), "20\n")), Processes::Descendants, now).expect("starts");
        assert_eq!(std::fs::read_to_string(dir.path().join("workload/pids.max")).expect("reads"), "28");
        assert!(!census.is_exceeded(now));
        assert_eq!(census.due(), Some(now + NEAR));
        std::fs::write(dir.path().join("workload/pids.current"), "21\n").expect("writes");
        assert!(census.is_exceeded(now));
        assert_eq!(census.due(), None);
    }

    #[test]
    fn a_count_that_cannot_be_read_is_an_overrun() {
        let dir = tempfile::tempdir().expect("creates");
        let now = Instant::now();
        let mut census =
            Census::start(20, Some(cgroup(dir.path(), "max\n")), Processes::Descendants, now).expect("starts");
        assert!(census.is_exceeded(now));
    }

    #[test]
    fn a_calm_workload_is_looked_at_less_often() {
        let dir = tempfile::tempdir().expect("creates");
        let now = Instant::now();
        let mut census =
            Census::start(20, Some(cgroup(dir.path(), "3\n")), Processes::Descendants, now).expect("starts");
        assert_eq!(census.due(), Some(now + NEAR));
        assert!(!census.is_exceeded(now));
        assert_eq!(census.due(), Some(now + CALM));
    }
}
