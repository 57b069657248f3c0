//! Gateways: one process for each session that has a way out, started when the session is assigned.
//!
//! It is our own program, but it handles a workload's bytes and holds secrets, so it is a user of its own that belongs to
//! this sandbox alone, has no capability, no environment but what says where certificates are, and no descriptor but its
//! control socket and the pipe. It dies with the server, and is gone before its sandbox counts as destroyed.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use backend::{Gateway, GatewayError, GatewayLink, GatewayProgram, SandboxId};
use model::gateway::GatewaySpec;
use rustix::{
    io::FdFlags,
    process::{Gid, Pid, Resource, Rlimit, Signal, Uid},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::unix::pipe,
    task,
};

use crate::{
    Inner,
    bell::Bell,
    launch::close_on_exec,
    live::Live,
    process::{self, Exit},
    render::inherited,
};

/// How long a gateway may take until it serves. An honest one takes a few milliseconds.
const READY_PATIENCE: Duration = Duration::from_secs(10);
/// How long one may take to end when nobody speaks with it any more, before it is killed.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// Its lines that are logged, and how much of each.
const LOGGED_LINES: usize = 200;
const LOGGED_BYTES: u64 = 2048;
/// Open files: two for each connection, and resolving and control besides.
const OPEN_FILES: u64 = 8192;
/// What it learns of the server's environment.
const ENVIRONMENT: [&str; 3] = ["SSL_CERT_FILE", "SSL_CERT_DIR", "RUST_BACKTRACE"];

/// What is started for each session. Held open: who may execute it need not reach it by path.
#[derive(Debug)]
pub(crate) struct Program {
    file: File,
    arguments: Vec<String>,
}

impl Program {
    pub(crate) fn open(program: &GatewayProgram) -> io::Result<Self> {
        Ok(Self { file: File::open(&program.program)?, arguments: program.arguments.clone() })
    }
}

/// A gateway's process.
#[derive(Debug)]
pub(crate) struct GatewayProcess {
    process: OwnedFd,
}

impl GatewayProcess {
    /// Ends it, if it has not ended, and lets go of it. Blocks until it is gone. Idempotent.
    pub(crate) fn end(&self) -> Option<Exit> {
        // One that has ended cannot be killed, which is as good.
        let _ = process::kill(&self.process);
        process::bury(&self.process)
    }
}

/// Starts a session's gateway at its sandbox's pipe, and returns when it serves.
pub(crate) async fn start(inner: &Arc<Inner>, live: &Arc<Live>, spec: &GatewaySpec) -> Result<Gateway, GatewayError> {
    let at = |step| move |source| GatewayError::Start { step, source };
    if inner.gateway.is_none() {
        return Err(GatewayError::Absent);
    }
    let pipe = live.take_pipe().ok_or(GatewayError::Mismatch)?;
    let (control, theirs) = UnixStream::pair().map_err(at("make control socket"))?;
    control.set_nonblocking(true).map_err(at("make control socket"))?;
    let control = tokio::net::UnixStream::from_std(control).map_err(at("make control socket"))?;
    // In one go that nothing interrupts: what was started is known to whoever destroys the sandbox.
    let job = {
        let (inner, live) = (Arc::clone(inner), Arc::clone(live));
        move || {
            let mut making = live.making()?;
            let program = inner.gateway.as_ref().expect("looked at above");
            let user = making.user().unwrap_or_else(|| inner.users.first());
            let (process, stderr) = spawn(program, &live.id, &theirs.into(), &pipe, crate::identity::gateway(user))?;
            let process = Arc::new(GatewayProcess { process });
            making.gateway_started(Arc::clone(&process));
            Ok((process, stderr))
        }
    };
    let started = inner.launcher.run(job).await.map_err(at("start gateway"))?;
    let (process, stderr): (Arc<GatewayProcess>, OwnedFd) = started.map_err(at("start gateway"))?;
    tokio::spawn(log(live.id.clone(), stderr));
    let opened = GatewayLink::open(control, spec, READY_PATIENCE).await;
    let link = match opened {
        Ok(link) => link,
        Err(error) => {
            end(process).await;
            return Err(error);
        }
    };
    let (gateway, theirs) = Gateway::pair();
    let id = live.id.clone();
    tokio::spawn(async move {
        match link.carry(theirs).await {
            Ok(()) => {
                if let Ok(bell) = process.process.try_clone().and_then(Bell::hang) {
                    // It has something to tidy up perhaps; if not, this takes no time.
                    let _ = tokio::time::timeout(END_PATIENCE, bell.hear()).await;
                }
            }
            Err(error) => tracing::warn!(sandbox = %id, %error, "the gateway is ended"),
        }
        if let Some(exit) = end(process).await {
            tracing::debug!(sandbox = %id, ?exit, "gateway ended");
        }
    });
    Ok(gateway)
}

async fn end(process: Arc<GatewayProcess>) -> Option<Exit> {
    task::spawn_blocking(move || process.end()).await.ok().flatten()
}

/// Starts the process. On the launcher's thread, which its life is bound to.
fn spawn(
    program: &Program,
    id: &SandboxId,
    control: &OwnedFd,
    pipe: &OwnedFd,
    user: u32,
) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut command = Command::new(inherited(program.file.as_raw_fd()));
    // By this name it is found among the host's processes as a part of its sandbox.
    command.arg0(id.as_str()).args(&program.arguments);
    for (option, descriptor) in [("--control", control), ("--pipe", pipe)] {
        command.arg(option).arg(descriptor.as_raw_fd().to_string());
    }
    command.env_clear().current_dir("/");
    command.envs(ENVIRONMENT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    enter(&mut command, [control.as_raw_fd(), pipe.as_raw_fd()], user);
    let mut child = command.spawn()?;
    // Nobody waits for this child but the holder of the descriptor.
    let process = process::open(Pid::from_child(&child))?;
    Ok((process, child.stderr.take().expect("piped").into()))
}

/// Arranges what is done in the child before it becomes the gateway.
#[expect(unsafe_code, reason = "pre_exec runs between fork and exec")]
fn enter(command: &mut Command, inherits: [RawFd; 2], user: u32) {
    let server = rustix::process::getpid();
    let most = rustix::process::getrlimit(Resource::Nofile).maximum;
    let open_files = Rlimit { current: Some(most.map_or(OPEN_FILES, |most| most.min(OPEN_FILES))), maximum: most };
    let enter = move || -> io::Result<()> {
        rustix::process::setsid()?;
        // No image of its memory ever goes to a disk.
        rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        rustix::process::setrlimit(Resource::Nofile, open_files)?;
        close_on_exec()?;
        for descriptor in inherits {
            // SAFETY: the caller keeps it open until the child was executed, and the child has a copy of it.
            let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
            rustix::io::fcntl_setfd(descriptor.as_fd(), FdFlags::empty())?;
        }
        become_user(user)?;
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

/// Gives up root, and with it all capabilities. In a forked process the thread is all of it.
fn become_user(user: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Logs what a gateway has to say to the operator, up to a bound; the rest is swallowed, and never in its way.
async fn log(id: SandboxId, stderr: OwnedFd) {
    let Ok(pipe) = pipe::Receiver::from_owned_fd(stderr) else { return };
    let mut pipe = BufReader::new(pipe);
    for _ in 0..LOGGED_LINES {
        let mut line = Vec::new();
        // What is longer than a line may be goes on in the next one.
        match (&mut pipe).take(LOGGED_BYTES).read_until(b'\n', &mut line).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let line = String::from_utf8_lossy(&line);
        let line: String = line.trim_end().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        tracing::warn!(sandbox = %id, "gateway: {line}");
    }
    let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
}
