//! The workload's processes, seen from above: reaping, killing, counting.
//!
//! As pid 1 everything else in the pid namespace is the workload. Otherwise (tests, and backends without a pid
//! namespace) it is our descendants: being their subreaper we get every orphan among them back.

use std::{
    collections::HashMap,
    os::fd::{FromRawFd, OwnedFd},
};

use protocol::Exit;
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, WaitStatus},
};

/// Children reaped in one go before the pipes get their turn again: a flood of them must not silence the output.
const REAPED_AT_ONCE: usize = 512;

/// Whose processes they are. See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Processes {
    /// All but ourselves.
    Namespace,
    /// Below us.
    Descendants,
}

/// What one round of reaping found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reaped {
    /// The end of the first process, if it was in this round.
    pub(crate) first: Option<Exit>,
    /// What remains.
    pub(crate) rest: Rest,
}

/// What remains after a round of reaping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// No child at all.
    None,
    /// Children that still run.
    Alive,
    /// Perhaps more to reap at once.
    Unknown,
}

impl Processes {
    /// Finds out which of the two applies to this process.
    pub(crate) fn find() -> Result<Self, Errno> {
        if rustix::process::getpid().is_init() {
            return Ok(Self::Namespace);
        }
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        Ok(Self::Descendants)
    }

    /// Sends SIGKILL to all of them. What is forked meanwhile may get away: repeat until none is left.
    pub(crate) fn kill(self) {
        match self {
            Self::Namespace => kill_namespace(),
            Self::Descendants => {
                for process in descendants() {
                    // Gone already is as good.
                    let _ = rustix::process::kill_process(process.pid, Signal::KILL);
                }
            }
        }
    }

    /// Processes and threads that exist now.
    pub(crate) fn count(self) -> u32 {
        let all = match self {
            Self::Namespace => everyone().filter(|process| !process.pid.is_init()).collect(),
            Self::Descendants => descendants(),
        };
        all.iter().map(|process| process.threads).sum()
    }
}

/// Reaps what has ended, and shows each but the first process.
pub(crate) fn reap(first: Pid, mut ended: impl FnMut(Pid, Exit)) -> Reaped {
    let mut reaped = Reaped { first: None, rest: Rest::Unknown };
    for _ in 0..REAPED_AT_ONCE {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == first => reaped.first = exit(status),
            Ok(Some((pid, status))) => {
                if let Some(exit) = exit(status) {
                    ended(pid, exit);
                }
            }
            Err(Errno::INTR) => {}
            Ok(None) => {
                reaped.rest = Rest::Alive;
                break;
            }
            Err(_) => {
                reaped.rest = Rest::None;
                break;
            }
        }
    }
    reaped
}

fn exit(status: WaitStatus) -> Option<Exit> {
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    let code = status.exit_status().map(|code| Exit::Code(byte(code)));
    code.or_else(|| status.terminating_signal().map(|signal| Exit::Signal(byte(signal))))
}

#[expect(unsafe_code, reason = "rustix has no kill(-1)")]
fn kill_namespace() {
    // SAFETY: kill takes two integers. Only pid 1 calls this, and -1 spares the caller and never leaves its namespace.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// Sends a signal to every process of the session that this one leads or led; whether there was any.
pub(crate) fn signal_session(leader: Pid, signal: Signal) -> bool {
    let mut found = false;
    for process in everyone().filter(|process| process.session == Some(leader) && !process.is_zombie) {
        found = true;
        // Gone already is as good.
        let _ = rustix::process::kill_process(process.pid, signal);
    }
    found
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: Pid,
    parent: Option<Pid>,
    session: Option<Pid>,
    threads: u32,
    is_zombie: bool,
}

fn everyone() -> impl Iterator<Item = Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?))
}

/// `pid (command) state parent group session ... threads ...`, where the command may hold spaces and parentheses.
fn parse(stat: &[u8]) -> Option<Process> {
    let close = stat.iter().rposition(|&byte| byte == b')')?;
    let pid = std::str::from_utf8(stat.split(|&byte| byte == b' ').next()?).ok()?;
    let mut fields = std::str::from_utf8(stat.get(close + 1..)?).ok()?.split_ascii_whitespace();
    Some(Process {
        pid: Pid::from_raw(pid.parse().ok()?)?,
        is_zombie: fields.next()? == "Z",
        parent: Pid::from_raw(fields.next()?.parse().ok()?),
        session: Pid::from_raw(fields.nth(1)?.parse().ok()?),
        threads: fields.nth(13)?.parse().ok()?,
    })
}

fn descendants() -> Vec<Process> {
    let mut children: HashMap<Option<Pid>, Vec<Process>> = HashMap::new();
    for process in everyone() {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = children.remove(&Some(rustix::process::getpid())).unwrap_or_default();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        let below = children.remove(&Some(process.pid)).unwrap_or_default();
        found.extend(below);
        next += 1;
    }
    found
}

/// Blocks every signal that can be blocked, for good, and gives a descriptor that is readable when a child ends.
///
/// Blocking is what makes this process deaf to the workload where both have the same user. A child
/// inherits it, and undoes it ([`crate::exec`]).
#[expect(unsafe_code, reason = "rustix has no signalfd and no signal masks")]
pub(crate) fn take_signals() -> std::io::Result<OwnedFd> {
    // SAFETY: both sets are initialised by sigfillset and sigemptyset before they are read; the descriptor that
    // signalfd returns is new and owned by nobody else.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        if libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        let mut child = std::mem::zeroed();
        libc::sigemptyset(&raw mut child);
        libc::sigaddset(&raw mut child, libc::SIGCHLD);
        let descriptor = libc::signalfd(-1, &raw const child, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC);
        if descriptor < 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_cannot_forge_the_fields_behind_it() {
        let stat = b"42 (a) R 1 (b)) S 7 42 41 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 9 0 100 0 0";
        let process = Process {
            pid: Pid::from_raw(42).expect("a pid"),
            parent: Pid::from_raw(7),
            session: Pid::from_raw(41),
            threads: 9,
            is_zombie: false,
        };
        assert_eq!(parse(stat), Some(process));
    }

    #[test]
    fn nonsense_is_no_process() {
        for stat in [b"".as_slice(), b"42", b"42 (a)", b"42 (a) S", b"x (a) S 7 42 42", b"\xff (\xff) \xff"] {
            assert_eq!(parse(stat), None);
        }
    }

    #[test]
    fn own_process_is_among_everyone() {
        let own = rustix::process::getpid();
        assert!(everyone().any(|process| process.pid == own && process.threads > 0));
    }
}
