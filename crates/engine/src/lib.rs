//! What happens between a request and its answer: admission, one driver task per session, the event hub, audit,
//! recovery after a crash, the reaper, and the drain at the end.
//!
//! [`Engine`] is the whole surface; `api` and the server's composition root are its only callers. It sees backends
//! through `backend::SessionBackend` and rows through `store::Store`, and knows neither HTTP nor SQL.
//!
//! One task owns one session: the [`driver`](crate::driver) is the only writer of a session's phase. Everybody else
//! reads what it published, or asks it to cancel.

mod admission;
mod artifacts;
mod auth;
mod bindings;
mod bound;
mod calls;
mod clock;
mod config;
mod courier;
mod create;
mod driver;
mod error;
mod files;
mod fleets;
mod hub;
mod live;
mod output;
mod query;
mod reaper;
mod recovery;
mod spool;
mod terminals;
mod triggers;
mod turns;
mod uploads;
mod vault;
mod view;
mod webhooks;

use std::{sync::Arc, time::Duration};

use backend::SessionBackend;
use model::access::Caller;
use store::Store;
use tokio::sync::{Notify, Semaphore, broadcast};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use artifacts::{ArtifactContent, Depot, Keep};
pub use auth::{IssuedKey, KeySummary, Keys, Pepper};
pub use bindings::Rotated;
pub use clock::{Clock, Ids};
pub use config::{Config, Profile};
pub use courier::{Answer, Courier, Letter, Undelivered};
pub use create::CreateRequest;
pub use error::{
    ArtifactError, AuthError, BindingError, BoundError, CancelError, CreateError, FileError, FireError, HookError,
    KeyError, ListError, ReadError, ResultError, ShutdownError, StartError, TerminalError, TriggerError, TurnError,
    WebhookSecretError,
};
pub use files::{Digest, Download, FileFilter, Upload};
pub use fleets::{CreateFleetRequest, FleetListError};
pub use hub::{Frame, FrameStream, MAX_SEQ};
pub use store::{
    BindingFilter, DeliveryFilter, FleetFilter, MemberFilter, NotFired, SessionFilter, StoreError, TriggerFilter,
    TurnFilter,
};
pub use terminals::{Attachment, Shown, TerminalGone};
pub use triggers::HookHeaders;
pub use turns::{TurnListError, TurnWaiter};
pub use uploads::Uploads;
pub use vault::{UnsealError, Vault};

use crate::{admission::Slots, live::Registry};

/// The control plane of one process. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    config: Config,
    store: Arc<dyn Store>,
    backends: Vec<Arc<dyn SessionBackend>>,
    clock: Clock,
    ids: Ids,
    pepper: Pepper,
    vault: Vault,
    /// Tells drivers that a binding of theirs has another secret.
    rotations: broadcast::Sender<Rotated>,
    courier: Arc<dyn Courier>,
    /// Rung when there may be a message to deliver.
    outgoing: Notify,
    /// Rung when a trigger may have something to fire.
    scheduled: Notify,
    dev_org: Option<wire::OrgId>,
    slots: Slots,
    registry: Registry,
    fleets: fleets::Fleets,
    reaper: reaper::Reaper,
    /// Files on their way in or out.
    transfers: Arc<Semaphore>,
    /// MiB of files that came beside requests.
    uploads: Arc<Semaphore>,
    drivers: TaskTracker,
    /// Cancelled when nothing new may be admitted.
    draining: CancellationToken,
    /// Cancelled when drivers that are still running must end their sessions.
    deadline: CancellationToken,
    /// Ends the background tasks.
    stopped: CancellationToken,
}

/// What an engine is made of.
pub struct Parts {
    /// Where state lives.
    pub store: Arc<dyn Store>,
    /// Backends, the default one first. At least one.
    pub backends: Vec<Arc<dyn SessionBackend>>,
    /// The clock; tests give one that they move.
    pub clock: Clock,
    /// Where ids come from; tests give a seeded one.
    pub ids: Ids,
    /// The key under which API keys are hashed.
    pub pepper: Pepper,
    /// The key under which secrets are sealed.
    pub vault: Vault,
    /// What carries webhook messages out.
    pub courier: Arc<dyn Courier>,
}

impl Engine {
    /// Ends and reclaims whatever an earlier process left, then starts the background tasks.
    pub async fn start(config: Config, parts: Parts) -> Result<Self, StartError> {
        if parts.backends.is_empty() {
            return Err(StartError::NoBackend);
        }
        let dev_org = match config.profile {
            Profile::Dev => Some(parts.store.system().ensure_org("dev", parts.ids.org(&parts.clock)).await?.id),
            Profile::SelfHost => None,
        };
        let inner = Arc::new(Inner {
            slots: Slots::new(config.max_concurrency, config.max_queue),
            registry: Registry::new(config.replay_bytes),
            fleets: fleets::Fleets::default(),
            reaper: reaper::Reaper::default(),
            transfers: Arc::new(Semaphore::new(files::MAX_TRANSFERS)),
            uploads: Arc::new(Semaphore::new(uploads::MAX_UPLOADED_MIB)),
            config,
            store: parts.store,
            backends: parts.backends,
            clock: parts.clock,
            ids: parts.ids,
            pepper: parts.pepper,
            vault: parts.vault,
            courier: parts.courier,
            outgoing: Notify::new(),
            scheduled: Notify::new(),
            rotations: broadcast::Sender::new(bindings::NOTICES),
            dev_org,
            drivers: TaskTracker::new(),
            draining: CancellationToken::new(),
            deadline: CancellationToken::new(),
            stopped: CancellationToken::new(),
        });
        inner.look_at_secrets().await?;
        let owed = recovery::recover(&inner).await?;
        tokio::spawn(reaper::run(Arc::clone(&inner), owed));
        tokio::spawn(webhooks::deliver::run(Arc::clone(&inner)));
        tokio::spawn(triggers::scheduler::run(Arc::clone(&inner)));
        let engine = Self { inner };
        fleets::resume(&engine).await?;
        Ok(engine)
    }

    /// Takes no further session from here on.
    pub fn stop_admitting(&self) {
        self.inner.draining.cancel();
        self.inner.drivers.close();
    }

    /// Stops admitting, lets what runs finish for at most `patience`, ends the rest, reclaims everything, and closes the
    /// store. What does not end even then is left to the next start, and said. Idempotent.
    pub async fn shutdown(&self, patience: Duration) -> Result<(), ShutdownError> {
        let inner = &self.inner;
        self.stop_admitting();
        if tokio::time::timeout(patience, inner.drivers.wait()).await.is_err() {
            inner.deadline.cancel();
            // A kill and a removal, each as late as it may be.
            if tokio::time::timeout(2 * inner.config.call_patience, inner.drivers.wait()).await.is_err() {
                tracing::error!(sessions = inner.drivers.len(), "sessions that do not end are left");
            }
        }
        inner.stopped.cancel();
        reaper::sweep_all(inner).await;
        inner.store.close().await;
        let mut left = 0;
        for backend in &inner.backends {
            let name = backend.capabilities().name;
            let listed = inner.list(backend.as_ref()).await;
            left += listed.map_err(|source| ShutdownError::Unknown { name, source })?.len();
        }
        if left == 0 { Ok(()) } else { Err(ShutdownError::Left { sandboxes: left }) }
    }

    /// Whether the engine takes sessions.
    pub fn is_draining(&self) -> bool {
        self.inner.draining.is_cancelled()
    }

    /// Notes in the audit log that a known caller was refused an operation.
    pub async fn note_denied(&self, caller: &Caller, operation: &str) {
        let draft = model::audit::Draft {
            ts: self.inner.clock.now(),
            kind: wire::AuditType::AccessDenied,
            session_id: None,
            actor: caller.subject.to_string(),
            source: wire::AuditSource::Platform,
            data: serde_json::json!({ "operation": operation, "role": caller.role.as_str() }),
        };
        if let Err(error) = self.inner.store.tenant(caller.org).append_audit(vec![draft]).await {
            tracing::error!(error = &error as &dyn std::error::Error, "a denial could not be audited");
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("backends", &self.backends.len()).finish_non_exhaustive()
    }
}
