//! Opening the backend: what it needs is looked for, and a sandbox is booted, before any session depends on it.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use backend::{AssignError, PrepareError, SandboxSpec, SessionBackend as _, Shape, channel::ChannelError};
use model::{
    Language,
    egress::Policy,
    gateway::{GatewayLimits, GatewaySpec},
    limits::Limits,
};
use rustix::fs::FlockOperation;

use crate::{
    CgroupError, Gvisor, GvisorConfig, ImageError, Inner,
    capabilities::{self, Found, RunAs},
    cgroup::Cgroups,
    gateway,
    identity::Users,
    image::Image,
    launch::Launcher,
    payload,
};

/// How long `runsc --version` may take.
const VERSION_PATIENCE: Duration = Duration::from_secs(5);
/// The disk of the sandbox that is booted to see whether it works.
const TRIAL_DISK_BYTES: u64 = 1024 * 1024;

/// Why the backend cannot be used on this host.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Namespaces, users and cgroups are root's to give.
    #[error("the gvisor backend must run as root")]
    NotRoot,
    /// The name would not be a safe part of a path.
    #[error("instance {0:?} is not 1 to 16 hexadecimal digits")]
    Instance(String),
    /// There is no image to boot.
    #[error("no image; build one first")]
    NoImage,
    /// An image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// `runsc` does not run.
    #[error("{} does not work as runsc: {reason}", path.display())]
    Runsc {
        /// Which one.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// The directory of this instance cannot be used.
    #[error("{step} in {}", path.display())]
    StateDir {
        /// What was tried.
        step: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Another process has this instance.
    #[error("another server uses {}", .0.display())]
    InUse(PathBuf),
    /// There is no place for our cgroups.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The gateway's program is not there.
    #[error("the gateway's program {}", path.display())]
    Gateway {
        /// Where it was looked for.
        path: PathBuf,
        /// Why it cannot be used.
        #[source]
        source: io::Error,
    },
    /// The process could not be set up.
    #[error("{step}")]
    Process {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A sandbox was tried and does not boot.
    #[error("a trial sandbox does not boot")]
    Boot(#[source] PrepareError),
}

impl Gvisor {
    /// Opens the backend: checks what it needs, installs the runner, boots a sandbox and removes it again.
    ///
    /// Makes this process the child subreaper of its descendants, for good.
    pub async fn open(config: GvisorConfig) -> Result<Self, OpenError> {
        if !rustix::process::geteuid().is_root() {
            return Err(OpenError::NotRoot);
        }
        check_instance(&config.instance)?;
        let runsc_version = runsc_version(&config.runsc).await?;
        let images: Vec<_> = config.images.iter().map(Image::open).collect::<Result<_, _>>()?;
        if images.is_empty() {
            return Err(OpenError::NoImage);
        }
        let (state_dir, lock) = take_state_dir(&config.state_dir)?;
        let at = |step, path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::StateDir { step, path, source }
        };
        let runner =
            payload::install(&state_dir, backend::payload::RUNNER).map_err(at("install runner", &state_dir))?;
        let sandboxes = state_dir.join("sandboxes");
        fs::create_dir_all(&sandboxes).map_err(at("create directory", &sandboxes))?;
        let cgroups = Cgroups::find(config.cgroup_parent.as_deref(), &config.instance)?;
        let process = |step| move |source: io::Error| OpenError::Process { step, source };
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|errno| process("become child subreaper")(errno.into()))?;
        let random = crate::random().map_err(process("get random bytes"))?;
        let program = config.gateway.as_ref().map(|named| {
            gateway::Program::open(named).map_err(|source| OpenError::Gateway { path: named.program.clone(), source })
        });
        let names: Vec<String> = images.iter().map(|image| image.name.clone()).collect();
        let (cgroup, bounds_swap) = (cgroups.version(), cgroups.bounds_swap());
        let inner = Arc::new(Inner {
            sandboxes,
            images: images.into_iter().map(Arc::new).collect(),
            runner,
            gateway: program.transpose()?,
            cgroups,
            launcher: Launcher::start().map_err(process("start thread"))?,
            users: Users::starting_at(u32::from_ne_bytes(random)),
            run_as: Mutex::new(RunAs::OwnUsers),
            live: Mutex::default(),
            _lock: lock,
            config,
        });
        let platform = inner.config.platform;
        let record = |run_as, egress| {
            capabilities::capabilities(&Found {
                runsc_version: &runsc_version,
                platform,
                run_as,
                cgroup,
                bounds_swap,
                images: &names,
                egress,
            })
        };
        let mut gvisor = Self { capabilities: record(RunAs::OwnUsers, false), inner };
        let run_as = gvisor.choose_run_as(&names[0]).await?;
        let egress = gvisor.has_egress(&names[0]).await;
        gvisor.capabilities = record(run_as, egress);
        tracing::info!(runsc = %runsc_version, %platform, ?run_as, cgroup, egress, "gvisor backend is ready");
        Ok(gvisor)
    }

    /// Tries a sandbox with a way out, and a gateway, if there is a program for one.
    async fn has_egress(&self, image: &str) -> bool {
        if self.inner.gateway.is_none() {
            return false;
        }
        match self.trial(image, Some(nobodys_gateway())).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "no session can have a way out here");
                false
            }
        }
    }

    /// Boots the default image as users of its own, and if that is refused the way that works everywhere.
    async fn choose_run_as(&self, image: &str) -> Result<RunAs, OpenError> {
        let slow = |error: &PrepareError| matches!(error, PrepareError::Handshake(ChannelError::Silent(_)));
        let mut tried = self.boots(image).await;
        if tried.as_ref().is_err_and(slow) {
            // Slow is not refused (a cold disk, say), and the weaker arrangement would be no faster.
            tried = self.boots(image).await;
        }
        let refused = match tried {
            Ok(()) => return Ok(RunAs::OwnUsers),
            Err(error) if slow(&error) => return Err(OpenError::Boot(error)),
            Err(error) => error,
        };
        *self.inner.run_as.lock().expect("nobody else has it yet") = RunAs::Nobody;
        match self.boots(image).await {
            Ok(()) => {
                tracing::warn!(error = %chain(&refused), "sandboxes cannot have users of their own here");
                Ok(RunAs::Nobody)
            }
            Err(error) => {
                tracing::debug!(error = %chain(&refused), "the first try");
                Err(OpenError::Boot(error))
            }
        }
    }

    async fn boots(&self, image: &str) -> Result<(), PrepareError> {
        match self.trial(image, None).await {
            Ok(()) => Ok(()),
            Err(Untried::Prepare(error)) => Err(error),
            Err(Untried::Assign(error)) => Err(PrepareError::Died(chain(&error))),
        }
    }

    /// Boots a sandbox, with a way out and a gateway if one is named, and removes it again.
    async fn trial(&self, image: &str, gateway: Option<GatewaySpec>) -> Result<(), Untried> {
        let shape = Shape {
            image: image.to_owned(),
            language: Language::Python,
            disk_bytes: TRIAL_DISK_BYTES,
            egress: gateway.is_some(),
        };
        let prepared = self.prepare(&shape).await?;
        let id = prepared.id.clone();
        let assigned = match gateway {
            Some(_) => {
                let spec = SandboxSpec { limits: Limits::default(), gateway, grace: Duration::ZERO };
                self.assign(prepared, &spec).await.map(drop).map_err(Untried::Assign)
            }
            None => Ok(()),
        };
        match self.destroy(&id).await {
            Ok(residue) if residue.is_none() => {}
            Ok(residue) => tracing::warn!(?residue, "the trial sandbox left something"),
            Err(error) => tracing::warn!(%error, "the trial sandbox is left"),
        }
        assigned
    }
}

/// Why a trial failed.
#[derive(Debug, thiserror::Error)]
enum Untried {
    #[error("it does not boot")]
    Prepare(#[from] PrepareError),
    #[error("it cannot be assigned")]
    Assign(#[source] AssignError),
}

/// What the gateway of a trial is told: that nothing is allowed, for a session that there never is.
fn nobodys_gateway() -> GatewaySpec {
    let session = "ses_00000000-0000-7000-8000-000000000000".parse().expect("it has the form of an id");
    GatewaySpec { session, policy: Policy::default(), limits: GatewayLimits::default(), bindings: Vec::new() }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn check_instance(instance: &str) -> Result<(), OpenError> {
    let valid = (1..=16).contains(&instance.len()) && instance.bytes().all(|byte| byte.is_ascii_hexdigit());
    if valid { Ok(()) } else { Err(OpenError::Instance(instance.to_owned())) }
}

/// Makes the directory, for root alone, and locks it.
fn take_state_dir(path: &Path) -> Result<(PathBuf, File), OpenError> {
    let at = |step| move |source| OpenError::StateDir { step, path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at("create directory"))?;
    let path = fs::canonicalize(path).map_err(at("find directory"))?;
    let lock = File::options().create(true).append(true).open(path.join("lock")).map_err(at("create lock"))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok((path, lock)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse(path)),
        Err(errno) => Err(OpenError::StateDir { step: "lock", path, source: errno.into() }),
    }
}

/// The version that `runsc` says it is.
pub(crate) async fn runsc_version(runsc: &Path) -> Result<String, OpenError> {
    let failed = |reason: String| OpenError::Runsc { path: runsc.to_owned(), reason };
    let mut command = tokio::process::Command::new(runsc);
    command.arg("--version").env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(VERSION_PATIENCE, command.output()).await;
    let output = output.map_err(|_| failed(format!("no answer within {VERSION_PATIENCE:?}")))?;
    let output = output.map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().next().and_then(|line| line.strip_prefix("runsc version ")) {
        Some(version) if output.status.success() => Ok(version.trim().chars().take(64).collect()),
        _ => Err(failed(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_instance_is_a_safe_part_of_a_path() {
        check_instance("0123abCDef").unwrap();
        for bad in ["", "../a", "0123456789abcdef0", "xyz", "a b"] {
            assert!(matches!(check_instance(bad), Err(OpenError::Instance(_))), "{bad}");
        }
    }

    #[test]
    fn a_state_dir_is_private_and_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = take_state_dir(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(take_state_dir(&path), Err(OpenError::InUse(_))));
        drop(first);
        take_state_dir(&path).unwrap();
    }

    async fn version_of(script: &str) -> Result<String, OpenError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runsc");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        runsc_version(&path).await
    }

    #[tokio::test]
    async fn runsc_is_what_says_that_it_is() {
        let version = version_of("#!/bin/sh\necho runsc version release-20240729.0\necho spec: 1.2.0\n").await.unwrap();
        assert_eq!(version, "release-20240729.0");
        assert!(matches!(version_of("#!/bin/sh\necho hello\n").await, Err(OpenError::Runsc { .. })));
        let error = version_of("#!/bin/sh\necho broken >&2; exit 3\n").await.unwrap_err();
        assert!(error.to_string().contains("broken"), "{error}");
    }
}
