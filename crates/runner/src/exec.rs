//! Starting one program as a child, the cheap way: the child shares this process's memory until it executes the
//! program, and this process stands still until then. Inside gVisor an address space that is copied only to be thrown
//! away costs a tenth of a whole session, which is why the standard library's `Command` is not used.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr,
    sync::atomic::{AtomicI32, Ordering},
};

use rustix::{
    io::Errno,
    process::{Gid, Pid, Resource, Rlimit, Signal, Uid},
    thread::{CapabilitySet, CapabilitySets},
};

/// Room for the child's few system calls.
const STACK_BYTES: usize = 64 * 1024;

use crate::filter::Filter;

/// What to start, and as what. Everything that needs memory is made before the child exists.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) path: &'a CStr,
    pub(crate) arguments: &'a [&'a CStr],
    /// `NAME=value`.
    pub(crate) environment: &'a [&'a CStr],
    pub(crate) directory: &'a CStr,
    pub(crate) identity: Identity,
    /// What the child has as descriptors 0, 1, 2, ...: nothing else stays open.
    pub(crate) descriptors: &'a [BorrowedFd<'a>],
    /// What descriptor 0 is to it.
    pub(crate) input: Input,
    /// The list of processes of the cgroup that it joins before it can do anything, open for writing.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// Gets its number before it exists for anybody else, so that its end is known for what it is whoever reaps it.
    pub(crate) number: &'a AtomicI32,
    /// Open files: what the program has, and the most it may ask for.
    pub(crate) open_files: (u64, u64),
    /// System calls that it is refused.
    pub(crate) filter: &'a Filter,
}

/// Who a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Who this process is.
    Same,
    /// This user and group, which takes capabilities.
    User(u32),
    /// This user, whom the calling thread acts as, with the group that the thread has: for good.
    Acting(u32),
}

/// What a program's descriptor 0 is to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// Something to read.
    Plain,
    /// The terminal that controls its session.
    Terminal,
}

/// What the child reads, and where it leaves the reason why it could not go on.
struct Shared<'a> {
    program: &'a Program<'a>,
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    error: Option<Errno>,
}

/// Starts it. Every descriptor of this process must be close-on-exec.
#[expect(unsafe_code, reason = "clone has no safe wrapper")]
pub(crate) fn spawn(program: &Program<'_>) -> Result<Pid, Errno> {
    let terminated = |strings: &[&CStr]| strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
    let mut shared = Shared {
        program,
        arguments: terminated(program.arguments),
        environment: terminated(program.environment),
        error: None,
    };
    let mut stack = vec![0_u128; STACK_BYTES / size_of::<u128>()];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT_SETTID | libc::SIGCHLD;
    // SAFETY: the child runs `child` on a stack of its own, which grows down from the end of `stack` and is aligned
    // as u128 is. CLONE_VFORK suspends this thread until the child has executed its program or exited: stack, `shared`
    // and all that it refers to outlive the child's use. The other threads (the way out's, and those for files)
    // go on meanwhile, and have no access to any of it but the number, which is atomic; their descriptors, which the child
    // may inherit, are all close-on-exec from the start.
    let pid = unsafe {
        let (top, number) = (stack.as_mut_ptr_range().end.cast(), program.number.as_ptr());
        libc::clone(child, top, flags, (&raw mut shared).cast(), number)
    };
    if pid < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::AGAIN));
    }
    let pid = Pid::from_raw(pid).expect("the parent gets a process id");
    match shared.error {
        None => Ok(pid),
        Some(errno) => {
            // Only a zombie is left of it.
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            Err(errno)
        }
    }
}

/// The child's whole life before the program. It shares memory with its parent: system calls only, no allocation.
#[expect(unsafe_code, reason = "called by clone with a raw pointer")]
extern "C" fn child(shared: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes a valid `Shared` that nobody else uses meanwhile.
    let shared = unsafe { &mut *shared.cast::<Shared<'_>>() };
    let error = match confine(shared.program) {
        Ok(()) => {
            // SAFETY: the path is a C string; both vectors hold pointers to C strings and end with a null pointer.
            unsafe {
                libc::execve(shared.program.path.as_ptr(), shared.arguments.as_ptr(), shared.environment.as_ptr());
                Errno::from_raw_os_error(*libc::__errno_location())
            }
        }
        Err(errno) => errno,
    };
    shared.error = Some(error);
    // Whoever reaps this has not seen the end of the program.
    shared.program.number.store(0, Ordering::Release);
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

/// Gives up everything that the program is not to have.
fn confine(program: &Program<'_>) -> Result<(), Errno> {
    if let Some(list) = program.cgroup {
        // Zero is whoever writes it.
        rustix::io::write(list, b"0")?;
    }
    // Raw system calls: the C library's versions would look for other threads of the process to change as well.
    if matches!(program.identity, Identity::User(_)) {
        rustix::thread::set_thread_groups(&[])?;
    }
    if let Identity::User(user) | Identity::Acting(user) = program.identity {
        rustix::thread::set_thread_res_gid(Gid::from_raw(user), Gid::from_raw(user), Gid::from_raw(user))?;
        rustix::thread::set_thread_res_uid(Uid::from_raw(user), Uid::from_raw(user), Uid::from_raw(user))?;
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::setsid()?;
    // Where the parent is not pid 1, its death would otherwise leave the workload behind.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::process::chdir(program.directory)?;
    limit(Resource::Core, 0, 0)?;
    limit(Resource::Nofile, program.open_files.0, program.open_files.1)?;
    release_signals()?;
    if let (Input::Terminal, Some(terminal)) = (program.input, program.descriptors.first()) {
        rustix::process::ioctl_tiocsctty(terminal)?;
    }
    for (target, descriptor) in (0..).zip(program.descriptors) {
        place(*descriptor, target)?;
    }
    // Last: what is done above is more than the program may.
    program.filter.install().map_err(|_| Errno::PERM)
}

fn limit(resource: Resource, current: u64, maximum: u64) -> Result<(), Errno> {
    let maximum = rustix::process::getrlimit(resource).maximum.map_or(maximum, |allowed| allowed.min(maximum));
    let new = Rlimit { current: Some(current.min(maximum)), maximum: Some(maximum) };
    rustix::process::setrlimit(resource, new)
}

/// Undoes what this process and its runtime have done to signals, all of which would be inherited.
#[expect(unsafe_code, reason = "rustix has no signal masks and dispositions")]
fn release_signals() -> Result<(), Errno> {
    // SAFETY: the set is initialised by sigemptyset before it is read; SIG_DFL runs no code.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        if libc::signal(libc::SIGPIPE, libc::SIG_DFL) == libc::SIG_ERR
            || libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) != 0
        {
            return Err(Errno::from_raw_os_error(*libc::__errno_location()));
        }
    }
    Ok(())
}

/// Makes a descriptor the child's number `target`. Those of the parent that are in the way are close-on-exec copies.
#[expect(unsafe_code, reason = "the target is no descriptor that anyone owns")]
fn place(descriptor: BorrowedFd<'_>, target: c_int) -> Result<(), Errno> {
    if descriptor.as_raw_fd() == target {
        return rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty());
    }
    // SAFETY: takes integers, and changes the child's own table of descriptors, which execve takes over.
    if unsafe { libc::dup2(descriptor.as_raw_fd(), target) } == target {
        return Ok(());
    }
    // SAFETY: errno of the call above.
    Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read as _, os::fd::AsFd as _};

    use super::*;

    fn run(path: &CStr, script: &CStr) -> Result<(String, Option<i32>), Errno> {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let null = File::open("/dev/null").expect("opens");
        let number = AtomicI32::new(0);
        let pid = spawn(&Program {
            path,
            arguments: &[c"sh", c"-c", script],
            environment: &[c"A=b"],
            directory: c"/",
            identity: Identity::Same,
            descriptors: &[null.as_fd(), writer.as_fd(), writer.as_fd()],
            input: Input::Plain,
            cgroup: None,
            number: &number,
            open_files: (64, 128),
            filter: &Filter::new().expect("compiles"),
        })?;
        assert_eq!(number.load(Ordering::Acquire), pid.as_raw_nonzero().get());
        drop(writer);
        let mut output = String::new();
        reader.read_to_string(&mut output).expect("reads");
        let status = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        Ok((output, status.expect("waits").expect("ended").1.exit_status()))
    }

    #[test]
    fn a_program_gets_the_directory_environment_limits_and_input_it_was_given() {
        let script = c"echo $A $HOME; pwd; ulimit -Sn; ulimit -Hn; ulimit -c; cat; exit 7";
        let (output, code) = run(c"/bin/sh", script).expect("starts");
        assert_eq!(output.lines().collect::<Vec<_>>(), ["b", "/", "64", "128", "0"]);
        assert_eq!(code, Some(7));
    }

    #[test]
    fn a_program_that_is_not_there_leaves_its_reason() {
        assert_eq!(run(c"/bin/no-such-program", c""), Err(Errno::NOENT));
    }
}
