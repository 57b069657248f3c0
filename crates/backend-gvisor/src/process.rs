//! Processes of the host, held by descriptor: a process id may be reused, a descriptor never names another process.
//!
//! Only what is certainly a sandbox's own is ever waited for, so no exit status is taken from other code of the server.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions},
};

/// How long killed processes may take to be gone.
pub(crate) const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It exited with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

/// Takes hold of a process. It may have ended already, and another may have its id: look again afterwards.
pub(crate) fn open(pid: Pid) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends SIGKILL.
pub(crate) fn kill(process: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::pidfd_send_signal(process, Signal::KILL)?)
}

/// Waits until a process has ended. Says whether it has.
pub(crate) fn await_end(process: impl AsFd, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Takes the exit status of a child that has ended. None while it runs, and when it is not our child (any more).
pub(crate) fn reap(process: impl AsFd) -> Option<Exit> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    loop {
        match rustix::process::waitid(WaitId::PidFd(process.as_fd()), options) {
            Ok(status) => {
                let status = status?;
                let code = status.exit_status().map(Exit::Code);
                return code.or_else(|| status.terminating_signal().map(Exit::Signal));
            }
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Waits for a child that has been killed, or is about to end, and takes its exit status.
pub(crate) fn bury(process: impl AsFd) -> Option<Exit> {
    await_end(&process, KILL_PATIENCE);
    reap(&process)
}

/// The parent of a process.
pub(crate) fn parent(pid: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    Pid::from_raw(field(&status, "PPid")?.parse().ok()?)
}

/// Children of ours that have ended and that nobody has waited for yet.
pub(crate) fn dead_children() -> Vec<Dead> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids: Vec<Pid> = lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect::<Vec<_>>())
        .collect();
    pids.into_iter().filter_map(Dead::look).collect()
}

/// A child that has ended. Its id cannot be reused before somebody has waited for it.
#[derive(Debug)]
pub(crate) struct Dead {
    process: OwnedFd,
    /// Its user on the host.
    pub(crate) user: u32,
    /// Its `/proc/PID/cgroup`.
    pub(crate) cgroups: String,
}

impl Dead {
    fn look(pid: Pid) -> Option<Self> {
        let process = open(pid).ok()?;
        let dir = format!("/proc/{}", pid.as_raw_nonzero());
        let status = fs::read_to_string(format!("{dir}/status")).ok()?;
        if !field(&status, "State")?.starts_with('Z') {
            return None;
        }
        let user = field(&status, "Uid")?.split_whitespace().next()?.parse().ok()?;
        Some(Self { process, user, cgroups: fs::read_to_string(format!("{dir}/cgroup")).unwrap_or_default() })
    }

    /// Lets it go.
    pub(crate) fn bury(&self) {
        reap(&self.process);
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Processes of the host with this word among their arguments.
pub(crate) fn naming(word: &str) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    let names = |pid: &Pid| {
        let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        line.split(|&byte| byte == 0).any(|argument| argument == word.as_bytes())
    };
    pids.filter(|pid| *pid != rustix::process::getpid()).filter(names).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        io::Read as _,
        process::{Child, Command, Stdio},
    };

    use super::*;

    /// A process that waits, with these words among its arguments. It runs when this returns: before, for a moment, it
    /// would have no arguments at all.
    pub(crate) fn waiting(words: &[&str]) -> Child {
        let mut child = Command::new("sh")
            .args(["-c", "echo; read line"])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        child
    }

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn a_child_is_killed_awaited_and_reaped_once() {
        #[expect(clippy::zombie_processes, reason = "reaping it is what is tested")]
        let child = waiting(&["enclave-test-word"]);
        let pid = Pid::from_child(&child);
        let process = open(pid).unwrap();
        assert_eq!(parent(pid), Some(rustix::process::getpid()));
        assert_eq!(naming("enclave-test-word"), [pid]);
        assert_eq!(reap(&process), None);
        assert!(!await_end(&process, Duration::from_millis(1)));
        kill(&process).unwrap();
        assert!(await_end(&process, LONG));
        let dead = dead_children();
        assert!(dead.iter().any(|dead| dead.user == rustix::process::getuid().as_raw()), "{dead:?}");
        assert_eq!(reap(&process), Some(Exit::Signal(9)));
        assert_eq!(reap(&process), None);
        assert_eq!(naming("enclave-test-word"), []);
    }

    #[test]
    fn an_exit_code_is_told() {
        #[expect(clippy::zombie_processes, reason = "reaping it is what is tested")]
        let child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let process = open(Pid::from_child(&child)).unwrap();
        assert!(await_end(&process, LONG));
        assert_eq!(reap(&process), Some(Exit::Code(7)));
    }
}
