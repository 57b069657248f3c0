//! Sandboxes by gVisor on this host: one `runsc run` per session. The server opens a [`Gvisor`] and hands it to the
//! engine as a [`SessionBackend`].
//!
//! What stands between a workload and the host, from the inside out:
//!
//! 1. The workload runs as user 65534 without capabilities, under the runner, in gVisor's kernel (the sentry), which
//!    answers its system calls. Its root is read-only, its writable files are on one size-bounded file system, it has no
//!    network interface but loopback.
//! 2. The sentry is an ordinary process of the host: as a user that belongs to this sandbox alone, without any
//!    capability, in an empty root and in namespaces of its own (user, pid, mount, network, ipc, uts), under gVisor's
//!    seccomp filter. Of the host it holds the image and the runner, read-only, the file behind the disk, and three
//!    pipes; where the session has a way out, a socket to its gateway and one for each connection. There is no file
//!    server process beside it ([`render`] says how that comes).
//! 3. `runsc run`, which started it and waits for it, is another user of this sandbox alone, and has no right on the
//!    host either ([`identity`]). On hosts that refuse this arrangement, `runsc` is root and the sentry is `nobody` in
//!    an empty user namespace, which is runsc's own default; the capabilities say which of the two it is.
//! 4. All of it is in cgroups of its own from the first instruction ([`cgroup`], [`launch`]), and in no other group.
//!
//! A session with a way out has a gateway process beside its sandbox ([`gateway`]).
//!
//! The server becomes the child subreaper of its descendants: what a dying `runsc` leaves behind comes back to it, and
//! is waited for by descriptor ([`process`]). When the server dies, its sandboxes are killed by the kernel; what is
//! left on disk and in the cgroup trees is found by the next server of the same instance through `list`.

mod bell;
mod capabilities;
mod cgroup;
mod config;
mod drive;
mod gateway;
mod identity;
mod image;
mod launch;
mod live;
mod log;
mod observe;
mod open;
mod payload;
mod process;
mod quick;
mod reclaim;
mod render;
mod rest;
mod spawn;
mod watch;

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use backend::{
    AssignError, Capabilities, DestroyError, Observation, ObserveError, PrepareError, Prepared, Residue, Sandbox,
    SandboxId, SandboxLimit, SandboxSpec, SessionBackend, Shape, Termination,
};
use tokio::{task, time::timeout};

pub use cgroup::CgroupError;
pub use config::{GvisorConfig, ImageRef, Platform, find_runsc};
pub use image::{ImageError, MOUNT_POINTS};
pub use open::OpenError;

use crate::{
    capabilities::RunAs, cgroup::Cgroups, identity::Users, image::Image, launch::Launcher, live::Live, reclaim::Site,
};

/// How long removing a sandbox may take in all.
const DESTROY_PATIENCE: Duration = Duration::from_secs(20);
/// How long the end of a killed sandbox may take to be seen.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// The backend. Dropping it ends its sandboxes.
#[derive(Debug)]
pub struct Gvisor {
    inner: Arc<Inner>,
    capabilities: Capabilities,
}

/// What the parts of the backend share.
#[derive(Debug)]
pub(crate) struct Inner {
    config: GvisorConfig,
    /// Where the directories of sandboxes are.
    sandboxes: PathBuf,
    images: Vec<Arc<Image>>,
    runner: File,
    gateway: Option<gateway::Program>,
    cgroups: Cgroups,
    launcher: Launcher,
    users: Users,
    run_as: Mutex<RunAs>,
    live: Mutex<HashMap<SandboxId, Arc<Live>>>,
    /// Held locked: one server per instance.
    _lock: File,
}

impl Inner {
    fn image(&self, name: &str) -> Option<Arc<Image>> {
        self.images.iter().find(|image| image.name == name).cloned()
    }

    fn run_as(&self) -> RunAs {
        *self.run_as.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make_spare(&self) {
        if self.run_as() == RunAs::OwnUsers {
            self.users.make_spare();
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<SandboxId, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self, id: &SandboxId) -> Option<Arc<Live>> {
        self.table().get(id).cloned()
    }

    /// A new sandbox, known by name from now on.
    fn register(&self) -> io::Result<Arc<Live>> {
        let id = SandboxId::from_bits(u128::from_ne_bytes(random()?));
        let dir = drive::found(&self.sandboxes, &id)?;
        let live = Arc::new(Live::new(id.clone(), dir, self.cgroups.group(&id)));
        self.table().insert(id, Arc::clone(&live));
        Ok(live)
    }

    fn site(&self, id: &SandboxId) -> Site {
        Site { id: id.clone(), group: self.cgroups.group(id), dir: self.sandboxes.join(id.as_str()) }
    }

    async fn destroy(&self, id: &SandboxId) -> Result<Residue, DestroyError> {
        let work = self.reclaim(id);
        timeout(DESTROY_PATIENCE, work).await.map_err(|_| DestroyError::TimedOut(DESTROY_PATIENCE))?
    }

    async fn reclaim(&self, id: &SandboxId) -> Result<Residue, DestroyError> {
        let failed = |error| DestroyError::Failed { step: "remove sandbox", source: io::Error::other(error) };
        let live = self.live(id);
        let site = self.site(id);
        let end = {
            let (live, group) = (live.clone(), site.group.clone());
            move || {
                if let Some(live) = live {
                    live.doom();
                    live.mark_killed();
                    live.end();
                    live.end_gateway();
                } else {
                    group.kill(END_PATIENCE);
                    live::bury_dead(&group, None);
                }
            }
        };
        task::spawn_blocking(end).await.map_err(failed)?;
        if let Some(live) = &live
            && timeout(END_PATIENCE, live.ended()).await.is_err()
        {
            tracing::warn!(sandbox = %id, "nobody saw its end");
        }
        let clear = move || {
            site.clear();
            site.residue()
        };
        let residue = task::spawn_blocking(clear).await.map_err(failed)?;
        if residue.is_none() {
            self.table().remove(id);
        }
        Ok(residue)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Stays if sandboxes are left in it.
        self.cgroups.remove();
    }
}

fn random<const LEN: usize>() -> io::Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes)
}

#[async_trait]
impl SessionBackend for Gvisor {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn prepare(&self, shape: &Shape) -> Result<Prepared, PrepareError> {
        drive::prepare(&self.inner, shape).await
    }

    async fn rest(&self, id: &SandboxId) {
        if let Some(live) = self.inner.live(id) {
            task::spawn(rest::once_it_is_quiet(live));
        }
    }

    async fn assign(&self, prepared: Prepared, spec: &SandboxSpec) -> Result<Sandbox, AssignError> {
        drive::assign(&self.inner, prepared, spec).await
    }

    async fn wait(&self, id: &SandboxId) -> Result<Termination, ObserveError> {
        let live = self.inner.live(id).ok_or_else(|| ObserveError::Gone(id.clone()))?;
        Ok(live.ended().await)
    }

    async fn overrun(&self, id: &SandboxId) -> Result<SandboxLimit, ObserveError> {
        let live = self.inner.live(id).ok_or_else(|| ObserveError::Gone(id.clone()))?;
        Ok(live.overrun().await)
    }

    async fn observe(&self, id: &SandboxId) -> Result<Observation, ObserveError> {
        let live = self.inner.live(id).ok_or_else(|| ObserveError::Gone(id.clone()))?;
        Ok(live.observation())
    }

    async fn kill(&self, id: &SandboxId) -> Result<(), ObserveError> {
        let unreachable = |source| ObserveError::Unreachable { step: "kill sandbox", source };
        let Some(live) = self.inner.live(id) else {
            let site = self.inner.site(id);
            if !site.is_there() {
                return Err(ObserveError::Gone(id.clone()));
            }
            let kill = move || site.group.kill(END_PATIENCE);
            task::spawn_blocking(kill).await.map_err(|error| unreachable(io::Error::other(error)))?;
            return Ok(());
        };
        live.mark_killed();
        watch::end(&live).await;
        let ended = timeout(END_PATIENCE, live.ended()).await;
        ended.map(drop).map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))
    }

    async fn destroy(&self, id: &SandboxId) -> Result<Residue, DestroyError> {
        self.inner.destroy(id).await
    }

    async fn list(&self) -> Result<Vec<SandboxId>, ObserveError> {
        let inner = &self.inner;
        let unreachable = |step| move |source| ObserveError::Unreachable { step, source };
        let mut ids: BTreeSet<SandboxId> = inner.table().keys().cloned().collect();
        ids.extend(inner.cgroups.list().map_err(unreachable("list cgroups"))?);
        for entry in std::fs::read_dir(&inner.sandboxes).map_err(unreachable("list directories"))? {
            let name = entry.map_err(unreachable("list directories"))?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse().ok()));
        }
        Ok(ids.into_iter().collect())
    }
}
