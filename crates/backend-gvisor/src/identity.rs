//! Who a sandbox is on the host.
//!
//! Every sandbox gets a user namespace of its own in which exactly two users exist, both belonging to this sandbox
//! alone on the host: `runsc` itself (0 inside) and the sentry (65534 inside, as runsc wants it). So no process of a
//! sandbox has any right on the host, not even the one that sets it up, and two sandboxes are two users. A third user
//! stands beside them, in no namespace: that of the session's gateway.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::process::Pid;

use crate::process;

/// The first of our users on the host: above what systemd hands out to containers, below its foreign range.
const FIRST: u32 = 0x7000_0000;
/// Users of one sandbox, its gateway's included.
const PER_SANDBOX: u32 = 3;
/// How many sandboxes have users of their own before the numbers start again.
const SANDBOXES: u32 = (0x7ffe_0000 - FIRST) / PER_SANDBOX;
/// The user that runsc makes the sentry.
const NOBODY: u32 = 65534;

/// Hands out users. Starts anywhere, so that two servers on a host hardly ever use the same.
#[derive(Debug)]
pub(crate) struct Users {
    next: AtomicU32,
    /// Made ahead, because it takes a fork of the server.
    spare: Mutex<Option<Identity>>,
}

impl Users {
    pub(crate) fn starting_at(random: u32) -> Self {
        Self { next: AtomicU32::new(random % SANDBOXES), spare: Mutex::new(None) }
    }

    /// A namespace with two users that no other sandbox has.
    pub(crate) fn take(&self) -> io::Result<Identity> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        spare.map_or_else(|| self.create(), Ok)
    }

    /// Makes one ahead, unless there is one.
    pub(crate) fn make_spare(&self) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.is_none() {
            // What fails now is tried again, and reported, when it is needed.
            *spare = self.create().ok();
        }
    }

    fn create(&self) -> io::Result<Identity> {
        Identity::create(self.first())
    }

    /// The first of the users of one more sandbox.
    pub(crate) fn first(&self) -> u32 {
        FIRST + self.next.fetch_add(1, Ordering::Relaxed) % SANDBOXES * PER_SANDBOX
    }
}

/// A user namespace that nobody is in yet.
#[derive(Debug)]
pub(crate) struct Identity {
    first: u32,
    namespace: OwnedFd,
}

impl Identity {
    fn create(first: u32) -> io::Result<Self> {
        let map = format!("0 {first} 1\n{NOBODY} {} 1\n", first + 1);
        let founder = Founder::start()?;
        for file in ["uid_map", "gid_map"] {
            fs::write(founder.file(file), &map)?;
        }
        let namespace = fs::File::open(founder.file("ns/user"))?.into();
        Ok(Self { first, namespace })
    }

    /// The host's user of `runsc`; the sentry's is the next.
    pub(crate) fn first(&self) -> u32 {
        self.first
    }

    pub(crate) fn namespace(&self) -> &OwnedFd {
        &self.namespace
    }
}

/// The user of the gateway of a sandbox whose users begin with this one.
pub(crate) fn gateway(first: u32) -> u32 {
    first + 2
}

/// Whether a user of the host is that of a gateway, of whatever sandbox.
pub(crate) fn is_gateway(user: u32) -> bool {
    (FIRST..FIRST + SANDBOXES * PER_SANDBOX).contains(&user) && (user - FIRST) % PER_SANDBOX == 2
}

/// Whether a user of the host is one of them.
pub(crate) fn is_of(first: u32, user: u32) -> bool {
    (first..first + PER_SANDBOX).contains(&user)
}

/// The process that a new namespace needs until somebody else holds on to it. It does nothing but wait for its end.
struct Founder {
    pid: Pid,
    process: OwnedFd,
}

impl Founder {
    #[expect(unsafe_code, reason = "a namespace is made by a process without other threads, so by a forked one")]
    fn start() -> io::Result<Self> {
        let (ready, done) = io::pipe()?;
        let server = rustix::process::getpid().as_raw_nonzero().get();
        // SAFETY: the child of this fork makes system calls only and ends with one; it allocates nothing and takes no
        // lock. `done` is open in it, being a copy of ours.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                // SAFETY: as above. `pause` is cut short by the SIGKILL that every founder gets.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    // The server may have died before it could be heard of.
                    if libc::getppid() != server {
                        libc::_exit(1);
                    }
                    let made: u8 = u8::from(libc::unshare(libc::CLONE_NEWUSER) == 0);
                    libc::write(done.as_raw_fd(), (&raw const made).cast(), 1);
                    loop {
                        libc::pause();
                    }
                }
            }
            pid => {
                let pid = Pid::from_raw(pid).expect("fork gives a positive number");
                // Nobody else waits for this child, so its number is its own until it is reaped below.
                let process = process::open(pid).inspect_err(|_| {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                    let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
                })?;
                let founder = Self { pid, process };
                drop(done);
                let mut made = 0;
                rustix::io::read(&ready, std::slice::from_mut(&mut made))?;
                if made == 1 { Ok(founder) } else { Err(io::Error::other("the kernel refused a user namespace")) }
            }
        }
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.pid.as_raw_nonzero())
    }
}

impl Drop for Founder {
    fn drop(&mut self) {
        let _ = process::kill(&self.process);
        process::bury(&self.process);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_two_sandboxes_never_overlap_and_stay_in_their_range() {
        let last = FIRST + (SANDBOXES - 1) * PER_SANDBOX;
        assert!(is_of(last, gateway(last)) && gateway(last) < 0x7ffe_0000);
        assert!(!is_of(FIRST, FIRST + PER_SANDBOX));
        assert!(!is_of(FIRST, 0));
        assert!(is_gateway(gateway(FIRST)) && is_gateway(gateway(last)));
        assert!(
            !is_gateway(FIRST) && !is_gateway(FIRST + 1) && !is_gateway(65534) && !is_gateway(last + PER_SANDBOX + 2)
        );
    }

    #[test]
    fn a_namespace_is_made_for_each_sandbox() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP a_namespace_is_made_for_each_sandbox: root");
            return;
        }
        let users = Users::starting_at(u32::MAX);
        let (one, other) = (users.take().unwrap(), users.take().unwrap());
        assert_eq!(one.first() + PER_SANDBOX, other.first());
    }
}
