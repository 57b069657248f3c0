//! The language host's process: found, started with nothing but what it needs, and connected.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::File,
    io, iter,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
    sync::atomic::AtomicI32,
};

use protocol::Language;
use rustix::{io::Errno, process::Pid};

use crate::{
    exec::{self, Identity, Input, Program},
    filter::Filter,
    hosts,
    setup::User,
};

/// The workload's user and group where this process is root: "nobody", who owns nothing.
pub(crate) const NOBODY: u32 = 65534;
/// Open files: what programs expect to have, and the most that they may ask for.
pub(crate) const OPEN_FILES: (u64, u64) = (1024, 4096);

pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const LANG: &str = "C.UTF-8";

/// What to start.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) language: Language,
    pub(crate) user: User,
    /// The program's working directory.
    pub(crate) workspace: PathBuf,
    /// Where the image keeps start-up snapshots; None to do without.
    pub(crate) snapshots: Option<PathBuf>,
}

/// A language host that waits for its program.
#[derive(Debug)]
pub(crate) struct Interpreter {
    pub(crate) pid: Pid,
    /// None once it is closed.
    pub(crate) control: Option<OwnedFd>,
    /// None once it is at its end.
    pub(crate) stdout: Option<OwnedFd>,
    /// None once it is at its end.
    pub(crate) stderr: Option<OwnedFd>,
    /// The program's environment as far as it does not depend on the session.
    pub(crate) env: Vec<(String, String)>,
    /// Whether it comes out of a snapshot.
    pub(crate) from_snapshot: bool,
}

/// Why there is no language host.
#[derive(Debug)]
pub(crate) enum SpawnError {
    /// The image lacks the interpreter, or the workload's user may not execute it.
    Missing { name: &'static str, path: OsString },
    /// It could not be executed.
    Spawn(PathBuf, io::Error),
    /// Pipes and sockets.
    Plumbing(io::Error),
    /// The filter of system calls could not be compiled for this machine.
    Filter(seccompiler::BackendError),
}

impl std::fmt::Display for SpawnError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing { name, path } => write!(f, "no executable {name} in {}", path.display()),
            Self::Spawn(program, error) => write!(f, "starting {}: {error}", program.display()),
            Self::Filter(error) => write!(f, "the filter of system calls: {error}"),
            Self::Plumbing(error) => write!(f, "connecting the language host: {error}"),
        }
    }
}

impl Interpreter {
    /// Starts the language host.
    pub(crate) fn spawn(launch: &Launch) -> Result<Self, SpawnError> {
        let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        let name = hosts::interpreter(launch.language);
        for dir in std::env::split_paths(&path) {
            let program = dir.join(name);
            if rustix::fs::access(&program, rustix::fs::Access::EXEC_OK).is_err() {
                continue;
            }
            match Self::execute(&program, launch, &path) {
                // It may be there for root alone.
                Err(SpawnError::Spawn(_, error)) if error.kind() == io::ErrorKind::PermissionDenied => {}
                done => return done,
            }
        }
        Err(SpawnError::Missing { name, path })
    }

    fn execute(program: &Path, launch: &Launch, path: &OsStr) -> Result<Self, SpawnError> {
        let workspace = launch.workspace.as_os_str();
        // Last, so that nothing of the image is shadowed: where pip puts programs of what it installs.
        let path = format!("{}:{}/.local/bin", text(path), text(workspace));
        let env = [("PATH", path), ("HOME", text(workspace)), ("LANG", LANG.to_owned())];
        let (control, their_control) = UnixStream::pair().map_err(SpawnError::Plumbing)?;
        let (stdout, their_stdout) = io::pipe().map_err(SpawnError::Plumbing)?;
        let (stderr, their_stderr) = io::pipe().map_err(SpawnError::Plumbing)?;
        let null = File::open("/dev/null").map_err(SpawnError::Plumbing)?;
        let failed = |error| SpawnError::Spawn(program.to_owned(), error);
        let string = |text: &[u8]| CString::new(text).map_err(|_| failed(io::ErrorKind::InvalidInput.into()));
        let name = string(program.as_os_str().as_bytes())?;
        let snapshot = launch.snapshots.as_deref().and_then(|dir| hosts::snapshot(launch.language, dir));
        let arguments: Vec<_> = iter::once(Ok(name.clone()))
            .chain(hosts::arguments(launch.language, snapshot.as_deref()).iter().map(|argument| string(argument)))
            .collect::<Result<_, _>>()?;
        let environment: Vec<_> =
            env.iter().map(|(name, value)| string(format!("{name}={value}").as_bytes())).collect::<Result<_, _>>()?;
        let filter = Filter::new().map_err(SpawnError::Filter)?;
        let pid = exec::spawn(&Program {
            path: &name,
            arguments: &arguments.iter().map(CString::as_c_str).collect::<Vec<_>>(),
            environment: &environment.iter().map(CString::as_c_str).collect::<Vec<_>>(),
            directory: &string(workspace.as_bytes())?,
            identity: match launch.user {
                User::Nobody => Identity::User(NOBODY),
                User::Same => Identity::Same,
            },
            // The host programs expect their channel to be number 3.
            descriptors: &[null.as_fd(), their_stdout.as_fd(), their_stderr.as_fd(), their_control.as_fd()],
            input: Input::Plain,
            // It is moved once it is there: until its program comes it starts nothing.
            cgroup: None,
            number: &AtomicI32::new(0),
            open_files: OPEN_FILES,
            filter: &filter,
        })
        .map_err(|errno| failed(errno.into()))?;
        let ours = |descriptor: OwnedFd| -> Result<Option<OwnedFd>, SpawnError> {
            nonblocking(descriptor.as_fd()).map_err(|errno| SpawnError::Plumbing(errno.into()))?;
            Ok(Some(descriptor))
        };
        Ok(Self {
            pid,
            control: ours(control.into())?,
            stdout: ours(stdout.into())?,
            stderr: ours(stderr.into())?,
            env: env.map(|(name, value)| (name.to_owned(), value)).into(),
            from_snapshot: snapshot.is_some(),
        })
    }
}

fn text(value: &OsStr) -> String {
    value.to_string_lossy().into_owned()
}

/// Makes a descriptor non-blocking.
pub(crate) fn nonblocking(descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(descriptor)?;
    rustix::fs::fcntl_setfl(descriptor, flags | rustix::fs::OFlags::NONBLOCK)
}

/// How a process ended, in words for the operator.
pub(crate) fn describe(exit: protocol::Exit) -> String {
    match exit {
        protocol::Exit::Code(code) => format!("exit code {code}"),
        protocol::Exit::Signal(signal) => format!("signal {signal}"),
    }
}
