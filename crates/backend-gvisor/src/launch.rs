//! Starting `runsc`: the one place where a process is made that will run something of a tenant.
//!
//! Between fork and exec the child joins its sandbox's cgroups, gives up every privilege that it has on the host, and
//! binds its life to the thread that started it. That thread is the [`Launcher`]'s: it does nothing else and lives as
//! long as the backend, so a dead server or a dropped backend takes its sandboxes along.

use std::{
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
};

use rustix::{
    io::FdFlags,
    process::{Pid, Resource, Rlimit, Signal},
    thread::LinkNameSpaceType,
};
use tokio::sync::oneshot;

use crate::process;

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
    /// The cgroups to join: descriptors of their `cgroup.procs`.
    pub(crate) doors: Vec<OwnedFd>,
    /// What runsc inherits besides its three pipes, under the numbers that they have here.
    pub(crate) inherits: Vec<BorrowedFd<'a>>,
    /// The user namespace to become root in. Without one, runsc stays root of the host.
    pub(crate) namespace: Option<BorrowedFd<'a>>,
}

/// What was started.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) pid: Pid,
    pub(crate) process: OwnedFd,
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Starts it. Returns when it has been executed.
pub(crate) fn launch(launch: &Launch<'_>) -> io::Result<Launched> {
    let mut command = Command::new(&launch.runsc);
    command.args(&launch.arguments).env_clear().current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    enter(&mut command, launch);
    let mut child = command.spawn()?;
    let pid = Pid::from_child(&child);
    // Nobody waits for this child but the holder of the descriptor.
    let process = process::open(pid)?;
    Ok(Launched {
        pid,
        process,
        stdin: child.stdin.take().expect("piped").into(),
        stdout: child.stdout.take().expect("piped").into(),
        stderr: child.stderr.take().expect("piped").into(),
    })
}

/// Arranges what is done in the child before it becomes runsc.
#[expect(unsafe_code, reason = "pre_exec runs between fork and exec")]
fn enter(command: &mut Command, launch: &Launch<'_>) {
    let doors: Vec<RawFd> = launch.doors.iter().map(rustix::fd::AsRawFd::as_raw_fd).collect();
    let inherits: Vec<RawFd> = launch.inherits.iter().map(rustix::fd::AsRawFd::as_raw_fd).collect();
    let namespace: Option<RawFd> = launch.namespace.map(|namespace| namespace.as_raw_fd());
    let server = rustix::process::getpid();
    let enter = move || -> io::Result<()> {
        // SAFETY (of the three borrows below): the caller keeps these descriptors open until the child was executed,
        // and the child has copies of them.
        let borrow = |descriptor: RawFd| unsafe { BorrowedFd::borrow_raw(descriptor) };
        rustix::process::setsid()?;
        for &door in &doors {
            rustix::io::write(borrow(door), b"0")?;
        }
        raise_oom_score()?;
        allow_huge_pages()?;
        // No image of a sandbox's memory ever goes to a disk.
        rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        close_on_exec()?;
        for &descriptor in &inherits {
            rustix::io::fcntl_setfd(borrow(descriptor), FdFlags::empty())?;
        }
        if let Some(namespace) = namespace {
            become_root_of(borrow(namespace))?;
        }
        rustix::thread::set_no_new_privs(true)?;
        // After the change of user, which takes this back.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(server) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls only: it allocates nothing, takes no lock, and touches no shared state.
    unsafe { command.pre_exec(enter) };
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
        let launched = launch(&Launch {
            runsc: "/bin/sh".into(),
            arguments: vec![
                "-c".into(),
                "read line; echo \"$line\"; cat /proc/self/oom_score_adj; grep THP /proc/self/status; env >&2".into(),
            ],
            doors: Vec::new(),
            inherits: Vec::new(),
            namespace: None,
        })
        .unwrap();
        rustix::io::write(&launched.stdin, b"hello\n").unwrap();
        let read = |end: OwnedFd| io::read_to_string(std::fs::File::from(end)).unwrap();
        assert_eq!(read(launched.stdout), "hello\n900\nTHP_enabled:\t1\n");
        let environment = read(launched.stderr);
        assert!(environment.lines().all(|line| line.starts_with("PWD=") || line.starts_with("_=")), "{environment}");
        assert!(process::await_end(&launched.process, std::time::Duration::from_secs(10)));
        assert_eq!(process::reap(&launched.process), Some(process::Exit::Code(0)));
    }
}
