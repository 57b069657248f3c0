//! The seam between the engine and whatever makes sandboxes.
//!
//! A backend is a handful of methods ([`SessionBackend`]) and a record of what it enforces ([`Capabilities`]). The
//! engine calls it and knows nothing of gVisor, microVMs or pods; every backend passes the same [`conformance`] suite.
//! The [`simulator`] is a backend that models instead of executing, for tests and load.

pub mod channel;
pub mod conformance;
pub mod gateway;
pub mod patience;
pub mod payload;
pub mod pool;
pub mod simulator;

mod error;
mod sandbox;

use async_trait::async_trait;

pub use channel::Channel;
pub use error::{AssignError, DestroyError, ObserveError, PrepareError};
pub use gateway::{Gateway, GatewayEnd, GatewayError, GatewayGone, GatewayHandle, GatewayLink, GatewayProgram};
pub use model::capability::Capabilities;
pub use sandbox::{
    Observation, Prepared, Residue, Sandbox, SandboxId, SandboxLimit, SandboxSpec, SandboxUsage, Shape, Termination,
};

/// Something that makes sandboxes. Methods may be called from any task; those that take an id work at any time.
///
/// `prepare` and `assign` may be dropped at any await: whatever exists by then is found by `list` and removed by
/// `destroy`.
#[async_trait]
pub trait SessionBackend: Send + Sync + 'static {
    /// What is enforced, and by what. Constant for the life of the backend.
    fn capabilities(&self) -> &Capabilities;

    /// Boots a sandbox that belongs to nobody yet; its runner is connected and has said hello. A failure that leaves
    /// something says so, with its name ([`PrepareError::Left`]).
    async fn prepare(&self, shape: &Shape) -> Result<Prepared, PrepareError>;

    /// A prepared sandbox will wait for a session for a while: what it takes meanwhile may be saved. [`Self::assign`] makes
    /// it go on. Does nothing for one that is not there.
    async fn rest(&self, _id: &SandboxId) {}

    /// Puts a session's limits into force on a prepared sandbox. After this, [`protocol::HostFrame::Start`] may be sent.
    async fn assign(&self, prepared: Prepared, spec: &SandboxSpec) -> Result<Sandbox, AssignError>;

    /// Resolves when the sandbox has ended: by itself, over one of its limits (the backend ends it then), or by `kill`.
    /// May be called by several tasks and after the end; answers until `destroy`.
    async fn wait(&self, id: &SandboxId) -> Result<Termination, ObserveError>;

    /// Resolves when the sandbox has gone over one of its limits, with the first. Where the spec gives it a grace for that
    /// limit it goes on until then; otherwise the backend ends it now. Never resolves for one that stays within them.
    async fn overrun(&self, id: &SandboxId) -> Result<SandboxLimit, ObserveError>;

    /// What the sandbox used so far, and the first limit that it went over, looked at now. Answers until `destroy`.
    async fn observe(&self, id: &SandboxId) -> Result<Observation, ObserveError>;

    /// Ends every process of the sandbox and keeps its accounting. Idempotent.
    async fn kill(&self, id: &SandboxId) -> Result<(), ObserveError>;

    /// Ends and removes everything of the sandbox and says what is left. Idempotent, for any id, at any time.
    async fn destroy(&self, id: &SandboxId) -> Result<Residue, DestroyError>;

    /// Everything of ours that exists here, whoever made it: for recovery and the orphan sweep. Fails when the backend
    /// cannot be reached.
    async fn list(&self) -> Result<Vec<SandboxId>, ObserveError>;
}
