//! A new process that is in its cgroup of version 2 from the first instruction. The standard library's `Command` cannot
//! make one: its child would have to move there, which makes the kernel wait for every processor (10 to 17 ms measured).

use std::{
    ffi::{CStr, CString},
    io::{self, Read as _, Write as _},
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    ptr,
};

use rustix::process::Pid;

use crate::process;

/// `clone3` flags; as bits of 64, which libc's are not.
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A process and the other ends of its three streams.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) pid: Pid,
    pub(crate) process: OwnedFd,
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Starts a program with pipes as its streams, without an environment, in `/`. Returns when it has been executed; what
/// fails before that, `enter` included, is returned.
///
/// # Safety
///
/// `enter` runs in the child, a copy of this process with this thread alone: it may make system calls and nothing else.
/// It must not allocate, take a lock, or touch what other threads may have been changing.
#[expect(unsafe_code, reason = "a fork")]
pub(crate) unsafe fn spawn(
    program: &CStr,
    arguments: &[CString],
    cgroup: Option<BorrowedFd<'_>>,
    enter: impl FnOnce() -> io::Result<()>,
) -> io::Result<Spawned> {
    let (their_stdin, stdin) = io::pipe()?;
    let (stdout, their_stdout) = io::pipe()?;
    let (stderr, their_stderr) = io::pipe()?;
    let (mut failure, told) = io::pipe()?;
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.as_ptr()).chain([ptr::null()]).collect();
    let environment = [ptr::null()];
    let child = || -> io::Error {
        let prepared = streams([their_stdin.as_raw_fd(), their_stdout.as_raw_fd(), their_stderr.as_raw_fd()]);
        if let Err(error) = prepared.and_then(|()| enter()) {
            return error;
        }
        // SAFETY: the path is a C string; both arrays hold pointers to C strings and end with a null pointer.
        unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        io::Error::last_os_error()
    };
    // SAFETY: the child does what `child` does, which is within what the caller promises, says why it failed, and ends.
    let Some((pid, process)) = unsafe { fork(cgroup) }? else {
        let code = child().raw_os_error().unwrap_or(libc::EIO);
        let _ = (&told).write(&code.to_ne_bytes());
        // SAFETY: ends this process without running anything of the parent's.
        unsafe { libc::_exit(127) }
    };
    drop((told, their_stdin, their_stdout, their_stderr));
    let mut code = [0; size_of::<i32>()];
    // An end without a word: it was executed.
    if failure.read_exact(&mut code).is_err() {
        return Ok(Spawned { pid, process, stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into() });
    }
    process::bury(&process);
    Err(io::Error::from_raw_os_error(i32::from_ne_bytes(code)))
}

/// As `fork`: in the child None, in the parent the child. The parent's thread goes on when the child was executed.
#[expect(unsafe_code, reason = "clone3 has no safe wrapper")]
unsafe fn fork(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Option<(Pid, OwnedFd)>> {
    let mut process = -1;
    // SAFETY: all of it are numbers, for which zero means that nothing is asked for.
    let mut wanted: libc::clone_args = unsafe { std::mem::zeroed() };
    wanted.flags = CLONE_PIDFD | CLONE_VFORK;
    wanted.pidfd = (&raw mut process).expose_provenance() as u64;
    wanted.exit_signal = libc::SIGCHLD.unsigned_abs().into();
    if let Some(cgroup) = cgroup {
        wanted.flags |= CLONE_INTO_CGROUP;
        wanted.cgroup = cgroup.as_raw_fd().unsigned_abs().into();
    }
    // SAFETY: memory is not shared, so the child goes on on its copy of this stack.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw mut wanted, size_of::<libc::clone_args>()) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("the parent gets a process id");
            // SAFETY: the kernel has just made it for this process.
            Ok(Some((pid, unsafe { OwnedFd::from_raw_fd(process) })))
        }
    }
}

/// Puts the streams in their places, and undoes what this process has arranged about signals for itself.
#[expect(unsafe_code, reason = "these are the child's numbers to give")]
fn streams(streams: [i32; 3]) -> io::Result<()> {
    // SAFETY: takes integers, and a set that is made here.
    unsafe {
        for (at, stream) in (0..).zip(streams) {
            if libc::dup2(stream, at) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        if libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) < 0 || libc::chdir(c"/".as_ptr()) < 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
