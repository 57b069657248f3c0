//! Starting `runsc`: the one place where a process is made that will run something of a tenant.
//!
//! Between fork and exec the child joins its sandbox's cgroups, gives up every privilege that it has on the host, and
//! binds its life to the thread that started it. That thread is the [`Launcher`]'s: it does nothing else and lives as
//! long as the backend, so a dead server or a dropped backend takes its sandboxes along.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::PathBuf,
    sync::mpsc,
};

use rustix::{
    io::FdFlags,
    process::{Resource, Rlimit, Signal},
    thread::LinkNameSpaceType,
};
use tokio::sync::oneshot;

use crate::{
    cgroup::Entry,
    quick,
    spawn::{Spawned, spawn},
};

/// How much rather than other processes those of a sandbox are killed when the host runs out of memory.
const OOM_SCORE: &[u8] = b"900";

/// Runs jobs one after the other on a thread of its own.
#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    jobs: mpsc::Sender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Launcher {
    pub(crate) fn start() -> io::Result<Self> {
        let (jobs, todo) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("gvisor-launch".into())
            .spawn(move || todo.into_iter().for_each(|job| job()))?;
        Ok(Self { jobs })
    }

    /// Runs a job to its end, also when the caller goes away.
    pub(crate) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (reply, answer) = oneshot::channel();
        let job = move || {
            // A caller that has gone away does not need the answer.
            let _ = reply.send(job());
        };
        self.jobs.send(Box::new(job)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    /// Runs a job when there is nothing else to do before it.
    pub(crate) fn later(&self, job: impl FnOnce() + Send + 'static) {
        // Without the thread there is nothing to prepare for either.
        let _ = self.jobs.send(Box::new(job));
    }
}

fn gone() -> io::Error {
    io::Error::other("the launching thread is gone")
}

/// What is started.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) runsc: PathBuf,
    pub(crate) arguments: Vec<String>,
    /// The cgroups that it is in.
    pub(crate) entry: Entry,
    /// What runsc inherits besides its three pipes, under the numbers that they have here.
    pub(crate) inherits: Vec<BorrowedFd<'a>>,
    /// The user namespace to become root in. Without one, runsc stays root of the host.
    pub(crate) namespace: Option<BorrowedFd<'a>>,
}

/// Starts it. Returns when it has been executed.
#[expect(unsafe_code, reason = "what is done between fork and exec")]
pub(crate) fn launch(launch: &Launch<'_>) -> io::Result<Spawned> {
    let doors: Vec<RawFd> = launch.entry.doors.iter().map(AsRawFd::as_raw_fd).collect();
    let inherits: Vec<RawFd> = launch.inherits.iter().map(AsRawFd::as_raw_fd).collect();
    let namespace: Option<RawFd> = launch.namespace.map(|namespace| namespace.as_raw_fd());
    let server = rustix::process::getpid();
    let filter = quick::no_membarrier()?;
    let enter = || -> io::Result<()> {
        // SAFETY (of the three borrows below): the caller keeps these descriptors open until the child was executed,
        // and the child has copies of them.
        let borrow = |descriptor: RawFd| unsafe { BorrowedFd::borrow_raw(descriptor) };
        rustix::process::setsid()?;
        // What runsc makes for the sandbox, other users have to find: with some umasks of the server none would start.
        rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
        for &door in &doors {
            rustix::io::write(borrow(door), b"0")?;
        }
        raise_oom_score()?;
        allow_huge_pages()?;
        // No image of a sandbox's memory ever goes to a disk.
        rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        close_on_exec()?;
        quick::room_for_streams()?;
        for &descriptor in &inherits {
            rustix::io::fcntl_setfd(borrow(descriptor), FdFlags::empty())?;
        }
        if let Some(namespace) = namespace {
            become_root_of(borrow(namespace))?;
        }
        rustix::thread::set_no_new_privs(true)?;
        seccompiler::apply_filter(&filter).map_err(|_| io::Error::last_os_error())?;
        // After the change of user, which takes this back.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(server) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    let string = |text: &[u8]| CString::new(text).map_err(io::Error::from);
    let program = string(launch.runsc.as_os_str().as_bytes())?;
    let arguments = launch.arguments.iter().map(|argument| string(argument.as_bytes()));
    let arguments: Vec<_> = std::iter::once(Ok(program.clone())).chain(arguments).collect::<Result<_, _>>()?;
    // SAFETY: the closure makes system calls only: it allocates nothing, takes no lock, and touches no shared state.
    unsafe { spawn(&program, &arguments, launch.entry.born_in.as_ref().map(OwnedFd::as_fd), enter) }
}

fn raise_oom_score() -> io::Result<()> {
    use rustix::fs::{Mode, OFlags};
    let file = rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, OOM_SCORE)?;
    Ok(())
}

/// What the server's allocator decides for the server is not for the sandbox, which would inherit it.
#[expect(unsafe_code, reason = "rustix has no such prctl")]
fn allow_huge_pages() -> io::Result<()> {
    // SAFETY: takes integers.
    let done = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 0, 0, 0, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Nothing that other code of the server left open by mistake is inherited.
#[expect(unsafe_code, reason = "rustix has no close_range")]
pub(crate) fn close_on_exec() -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: takes integers, and closes nothing now.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    match io::Error::last_os_error() {
        _ if done == 0 => Ok(()),
        // Kernels before 5.11; the standard library opens everything that way anyhow.
        error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => Ok(()),
        error => Err(error),
    }
}

/// Changes who this thread is, which in a forked process is all of it.
fn become_root_of(namespace: BorrowedFd<'_>) -> io::Result<()> {
    use rustix::{
        process::{Gid, Uid},
        thread,
    };
    thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::User))?;
    thread::set_thread_groups(&[])?;
    thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;

    fn start(program: &str, arguments: &[&str], entry: Entry) -> io::Result<Spawned> {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        launch(&Launch { runsc: program.into(), arguments, entry, inherits: Vec::new(), namespace: None })
    }

    #[tokio::test]
    async fn a_job_is_done_even_when_nobody_waits_for_it() {
        let launcher = Launcher::start().unwrap();
        let (sender, receiver) = mpsc::channel();
        {
            let abandoned = launcher.run(move || sender.send(1).unwrap());
            tokio::select! { biased; _ = abandoned => {}, () = std::future::ready(()) => {} }
        }
        assert_eq!(launcher.run(move || receiver.recv().unwrap()).await.unwrap(), 1);
    }

    #[test]
    #[expect(unsafe_code, reason = "as above")]
    fn a_launched_process_has_its_pipes_and_no_environment() {
        // As the server's allocator does.
        // SAFETY: takes integers.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) }, 0);
        let script = "read line; echo \"$line\"; umask; cat /proc/self/oom_score_adj; \
                      grep -E 'THP|NoNew|Seccomp:' /proc/self/status; pwd; echo /proc/self/fd/???; env >&2";
        let launched = start("/bin/sh", &["-c", script], Entry::default()).unwrap();
        rustix::io::write(&launched.stdin, b"hello\n").unwrap();
        let read = |end: OwnedFd| io::read_to_string(std::fs::File::from(end)).unwrap();
        assert_eq!(
            read(launched.stdout),
            "hello\n0022\n900\nTHP_enabled:\t1\nNoNewPrivs:\t1\nSeccomp:\t2\n/\n/proc/self/fd/256\n"
        );
        let environment = read(launched.stderr);
        assert!(environment.lines().all(|line| line.starts_with("PWD=") || line.starts_with("_=")), "{environment}");
        assert!(process::await_end(&launched.process, std::time::Duration::from_secs(10)));
        assert_eq!(process::reap(&launched.process), Some(process::Exit::Code(0)));
    }

    #[test]
    fn what_cannot_be_started_is_told() {
        let opened = |path: &str| OwnedFd::from(std::fs::File::open(path).unwrap());
        let bad_door = Entry { born_in: None, doors: vec![opened("/dev/null")] };
        let no_group = Entry { born_in: Some(opened("/")), doors: Vec::new() };
        for (program, entry, expected) in [
            ("/no/such/runsc", Entry::default(), libc::ENOENT),
            ("/dev/null", Entry::default(), libc::EACCES),
            ("/bin/true", bad_door, libc::EBADF),
            ("/bin/true", no_group, libc::EBADF),
        ] {
            let error = start(program, &[], entry).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(expected), "{program}: {error}");
        }
        let error = start("/bin/tr\0ue", &[], Entry::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn what_has_no_membarrier_is_told_as_by_a_kernel_without_it() {
        let python = "/usr/bin/python3";
        if !std::path::Path::new(python).exists() {
            println!("SKIP what_has_no_membarrier_is_told_as_by_a_kernel_without_it: python3");
            return;
        }
        let code = format!(
            "import ctypes; c = ctypes.CDLL(None, use_errno=True); print(c.syscall({}, 0, 0), ctypes.get_errno())",
            libc::SYS_membarrier
        );
        let launched = start(python, &["-c", &code], Entry::default()).unwrap();
        let told = io::read_to_string(std::fs::File::from(launched.stdout)).unwrap();
        assert_eq!(told, format!("-1 {}\n", libc::ENOSYS));
        assert!(process::await_end(&launched.process, std::time::Duration::from_secs(10)));
        process::reap(&launched.process);
    }
}
