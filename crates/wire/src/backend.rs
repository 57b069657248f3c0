//! Backends and the server's own health.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Enforcement, ExecMode, Language};

/// What stands between a workload and the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// A virtual machine with a kernel of its own.
    Microvm,
    /// A kernel in user space that answers every system call (gVisor).
    UserspaceKernel,
    /// Namespaces on the host's kernel. For development.
    Container,
    /// Nothing is executed: a model.
    Simulated,
}

impl Isolation {
    /// The word in JSON and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Microvm => "microvm",
            Self::UserspaceKernel => "userspace_kernel",
            Self::Container => "container",
            Self::Simulated => "simulated",
        }
    }
}

/// A backend of this deployment, and what it enforces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendView {
    /// Its name, as in `CreateSession.backend`.
    pub name: String,
    /// What isolates its sandboxes.
    pub isolation: Isolation,
    /// Whether it really executes code; false for the simulator.
    pub executes: bool,
    /// Whether sessions go to it when the request names none.
    pub default: bool,
    /// Languages its images offer.
    pub languages: Vec<Language>,
    /// Modes it offers.
    pub exec_modes: Vec<ExecMode>,
    /// The mechanism behind each part of the policy.
    pub enforcement: Enforcement,
    /// Images it can start.
    pub images: Vec<String>,
}

/// The backends of this deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendPage {
    /// The backends; the default one first.
    pub items: Vec<BackendView>,
}

/// Whether something works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// It works.
    Ok,
    /// It does not.
    Unavailable,
}

/// The process lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Always `ok`: a server that is not does not answer.
    pub status: HealthStatus,
    /// Version of the server.
    pub version: String,
}

/// A backend's part in being ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadyBackend {
    /// Its name.
    pub name: String,
    /// What isolates its sandboxes.
    pub isolation: Isolation,
    /// Whether it answers.
    pub reachable: bool,
}

/// Whether the server takes sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Readiness {
    /// `ok` when sessions can be created now.
    pub status: HealthStatus,
    /// Why not, when not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Each backend.
    pub backends: Vec<ReadyBackend>,
}
