//! Making a sandbox, and putting a session's limits on it.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::{
            fs::{DirBuilderExt as _, PermissionsExt as _, chown},
            net::UnixStream,
        },
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use backend::{
    AssignError, Channel, GatewayError, PrepareError, Prepared, Sandbox, SandboxId, SandboxSpec, Shape,
    channel::ChannelError,
};
use model::limits::Limits;
use tokio::{net::unix::pipe, runtime::Handle, task};

use crate::{
    Inner,
    capabilities::RunAs,
    cgroup::{Caps, Failed},
    gateway,
    image::{Image, Root},
    launch::{Launch, launch},
    live::{Live, Processes},
    render::{self, DISK_DIR, ROOT_DIR, STATE_DIR, Wanted, inherited},
    spawn::Spawned,
    watch,
};

const MIB: u64 = 1024 * 1024;

/// Memory that gVisor itself needs, on top of what the session may use. Measured: `runsc`, the sentry and the runner
/// take about 12 MiB when idle, and with a hundred processes about 40, for the sentry's bookkeeping and the host
/// kernel's. Without it a workload would be killed well below the limit that it was promised.
pub(crate) const OVERHEAD_BYTES: u64 = 48 * MIB;

/// Threads of gVisor itself on the host: 21 when idle on two cores, more with more cores.
const OWN_THREADS: u32 = 512;
/// Processes and threads of the host behind one of the workload: two have been seen for a process, none for a thread,
/// and as many more as run at once. The exact limit is watched inside; this one is there for a workload that outruns
/// the watch, and for a sentry that was taken over.
const PER_WORKLOAD_THREAD: u32 = 4;

/// What a sandbox may use until it belongs to a session.
const WHILE_BOOTING: Caps = Caps { memory_bytes: 512 * MIB, reserve_bytes: 0, cpu_millis: 4000, pids: 1024 };

/// Memory on top, for a sandbox whose program is over it and whose files are still wanted: what the program takes until
/// the runner has ended it. Measured: with half of it, 118 of 120 programs that did nothing but fill memory were ended in
/// time.
const RESERVE_BYTES: u64 = 128 * MIB;

/// The host's ends of a sandbox's pipe.
struct Pipe {
    stdin: OwnedFd,
    stdout: OwnedFd,
}

/// Boots a sandbox and waits for its runner.
pub(crate) async fn prepare(inner: &Arc<Inner>, shape: &Shape) -> Result<Prepared, PrepareError> {
    let image = inner.image(&shape.image).ok_or_else(|| PrepareError::NoImage(shape.image.clone()))?;
    let live = inner.register().map_err(|source| PrepareError::Setup { step: "create directory", source })?;
    let id = live.id.clone();
    let booted = boot(inner, image, live, shape).await;
    inner.launcher.later({
        let inner = Arc::clone(inner);
        move || inner.make_spare()
    });
    match booted {
        Ok(channel) => Ok(Prepared { id, channel, shape: shape.clone() }),
        // What cannot be removed now is still listed, and the caller is told its name.
        Err(error) => Err(match inner.destroy(&id).await {
            Ok(residue) if residue.is_none() => error,
            Ok(residue) => {
                tracing::warn!(sandbox = %id, residue = ?residue.0, "a sandbox that did not boot left something");
                error.leaving(id)
            }
            Err(failed) => {
                tracing::warn!(sandbox = %id, error = %failed, "a sandbox that did not boot is left");
                error.leaving(id)
            }
        }),
    }
}

async fn boot(inner: &Arc<Inner>, image: Arc<Image>, live: Arc<Live>, shape: &Shape) -> Result<Channel, PrepareError> {
    let job = {
        let (inner, live, shape, runtime) = (Arc::clone(inner), Arc::clone(&live), shape.clone(), Handle::current());
        move || start(&inner, &image, &live, &shape, &runtime)
    };
    let setup = |Failed { step, source }| PrepareError::Setup { step, source };
    let started = inner.launcher.run(job).await.map_err(|source| setup(Failed { step: "start runsc", source }))?;
    let Pipe { stdin, stdout } = started.map_err(setup)?;
    let pipe = |source| setup(Failed { step: "open the runner's pipe", source });
    let reader = pipe::Receiver::from_owned_fd(stdout).map_err(pipe)?;
    let writer = pipe::Sender::from_owned_fd(stdin).map_err(pipe)?;
    match Channel::handshake(reader, writer, inner.config.boot_patience).await {
        Ok(channel) => {
            // From now on nobody needs to find them by their traces.
            live.processes().expect("it was started").muster(&live.group);
            Ok(channel)
        }
        Err(ChannelError::Closed) => {
            let end = tokio::time::timeout(inner.config.boot_patience, live.ended()).await;
            Err(PrepareError::Died(end.map_or_else(|_| "its pipe was closed".into(), |end| format!("{end:?}"))))
        }
        Err(error) => Err(PrepareError::Handshake(error)),
    }
}

/// Everything up to the running process, in one go that nothing interrupts. On the launcher's thread.
fn start(inner: &Inner, image: &Image, live: &Arc<Live>, shape: &Shape, runtime: &Handle) -> Result<Pipe, Failed> {
    let at = |step: &'static str| move |source: io::Error| Failed { step, source };
    let mut making = live.making().map_err(at("start"))?;
    live.group.create()?;
    live.group.limit(&WHILE_BOOTING)?;
    // A directory as the root needs a file server that can read it, whoever owns what is in it: one that is root.
    let own_users = inner.run_as() == RunAs::OwnUsers && matches!(image.root, Root::Erofs(_));
    let identity = own_users.then(|| inner.users.take()).transpose().map_err(at("create user namespace"))?;
    let user = identity.as_ref().map(crate::identity::Identity::first);

    let dir = lay_out(&live.dir, user).map_err(at("create directory"))?;
    let dir_path = inherited(dir.as_raw_fd());
    let image_path;
    let mut inherits = vec![dir.as_fd(), inner.runner.as_fd()];
    let root = match &image.root {
        Root::Erofs(file) => {
            image_path = inherited(file.as_raw_fd());
            inherits.push(file.as_fd());
            render::Root::Erofs(&image_path)
        }
        Root::Directory(path) => render::Root::Directory(path),
    };
    // Both ends are closed here once they are where they belong: each side learns of the other's end.
    let way_out = shape.egress.then(UnixStream::pair).transpose().map_err(at("make way out"))?;
    let (gateways, runners) = way_out.map(|(ours, theirs)| (OwnedFd::from(ours), OwnedFd::from(theirs))).unzip();
    inherits.extend(runners.as_ref().map(OwnedFd::as_fd));
    let wanted = Wanted {
        id: &live.id,
        platform: inner.config.platform,
        language: shape.language,
        disk_bytes: shape.disk_bytes,
        root,
        dir: &dir_path,
        runner: inner.runner.as_raw_fd(),
        egress: runners.as_ref().map(OwnedFd::as_raw_fd),
    };
    write_config(&live.dir, &wanted).map_err(at("write config.json"))?;
    let launched = launch(&Launch {
        runsc: inner.config.runsc.clone(),
        arguments: render::arguments(&wanted),
        entry: live.group.entry().map_err(at("open cgroup"))?,
        inherits,
        namespace: identity.as_ref().map(|identity| identity.namespace().as_fd()),
    });
    let Spawned { pid, process, stdin, stdout, stderr } = launched.map_err(at("start runsc"))?;
    let processes = Arc::new(Processes::new(pid, process, user));
    making.started(Arc::clone(&processes), gateways);
    runtime.spawn(watch::run(Arc::clone(live), processes, stderr));
    Ok(Pipe { stdin, stdout })
}

/// The directories of a sandbox. What runsc writes to belongs to the sandbox's own user.
fn lay_out(dir: &Path, user: Option<u32>) -> io::Result<File> {
    for name in [DISK_DIR, STATE_DIR, ROOT_DIR] {
        let path = dir.join(name);
        make_dir(&path, 0o711)?;
        chown(path, user, user)?;
    }
    File::open(dir)
}

fn write_config(dir: &Path, wanted: &Wanted<'_>) -> io::Result<()> {
    let path = dir.join("config.json");
    fs::write(&path, serde_json::to_vec(&render::config(wanted))?)?;
    fs::set_permissions(path, Permissions::from_mode(0o644))
}

/// The mode is what the sandbox's user needs, whatever the umask of this process.
fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// The limits of a session as limits of its group.
fn caps(limits: &Limits, grace: Duration) -> Caps {
    Caps {
        memory_bytes: limits.memory_bytes.saturating_add(OVERHEAD_BYTES),
        reserve_bytes: if grace.is_zero() { 0 } else { RESERVE_BYTES },
        cpu_millis: limits.cpu_millis,
        pids: limits.pids.saturating_mul(PER_WORKLOAD_THREAD).saturating_add(OWN_THREADS),
    }
}

/// Puts a session's limits into force.
pub(crate) async fn assign(inner: &Arc<Inner>, prepared: Prepared, spec: &SandboxSpec) -> Result<Sandbox, AssignError> {
    let Prepared { id, channel, shape } = prepared;
    let live = inner.live(&id).filter(|live| live.termination().is_none());
    let live = live.ok_or_else(|| AssignError::Gone(id.clone()))?;
    // The disk was made with the shape's size.
    let limits = Limits { disk_bytes: shape.disk_bytes, ..spec.limits };
    let grace = spec.grace;
    let work = {
        let live = Arc::clone(&live);
        move || {
            live.wake()?;
            live.enforce(&caps(&limits, grace), limits, grace)
        }
    };
    let gateway = match (&spec.gateway, shape.egress) {
        (Some(spec), true) => Some(gateway::start(inner, &live, spec)),
        (None, false) => None,
        (Some(_), false) | (None, true) => return Err(GatewayError::Mismatch.into()),
    };
    let done = task::spawn_blocking(work).await.map_err(io::Error::other);
    let done = done.unwrap_or_else(|source| Err(Failed { step: "put limits into force", source }));
    if live.termination().is_some() {
        return Err(AssignError::Gone(id));
    }
    done.map_err(|Failed { step, source }| AssignError::Limit { step, source })?;
    let gateway = match gateway {
        Some(starting) => Some(starting.await?),
        None => None,
    };
    Ok(Sandbox { id, channel, gateway })
}

/// Makes the directory of a new sandbox: from then on it is listed.
pub(crate) fn found(sandboxes: &Path, id: &SandboxId) -> io::Result<std::path::PathBuf> {
    let dir = sandboxes.join(id.as_str());
    make_dir(&dir, 0o755)?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_gets_what_the_session_gets_and_what_gvisor_needs() {
        let limits = Limits { memory_bytes: 128 * MIB, cpu_millis: 500, pids: 16, ..Limits::default() };
        let caps = caps(&limits, Duration::ZERO);
        assert_eq!((caps.memory_bytes, caps.reserve_bytes), (128 * MIB + OVERHEAD_BYTES, 0));
        assert_eq!(caps.cpu_millis, 500);
        assert_eq!(caps.pids, 16 * PER_WORKLOAD_THREAD + OWN_THREADS);
    }

    #[test]
    fn absurd_limits_do_not_overflow() {
        let limits = Limits { memory_bytes: u64::MAX, pids: u32::MAX, ..Limits::default() };
        let caps = caps(&limits, Duration::from_secs(1));
        assert_eq!((caps.memory_bytes, caps.reserve_bytes, caps.pids), (u64::MAX, RESERVE_BYTES, u32::MAX));
    }
}
