//! Sessions and their results, as callers see them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Egress, Isolation, JsonText, Limits, OrgId, SessionId, Timestamp};

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Accepted; its sandbox is not ready.
    Pending,
    /// The workload runs.
    Running,
    /// An interactive session whose memory was put away.
    Paused,
    /// Exit code 0. The sandbox is being reclaimed.
    Succeeded,
    /// Any other exit code, or a fault of ours. The sandbox is being reclaimed.
    Failed,
    /// A limit or the caller ended it. The sandbox is being reclaimed.
    Killed,
    /// Nothing of its sandbox is left.
    TornDown,
}

impl Phase {
    /// The word in JSON and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Killed => "killed",
            Self::TornDown => "torn_down",
        }
    }
}

/// How a session ended. Stays after teardown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Exit code 0.
    Succeeded,
    /// Any other exit code.
    Failed,
    /// A limit ended it; `killReason` says which.
    Killed,
    /// The caller ended it.
    Cancelled,
    /// We failed; `fault` says how.
    Faulted,
}

/// Which limit ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KillReason {
    /// `limits.cpuTimeMs`.
    CpuExceeded,
    /// `limits.memoryBytes`.
    MemoryExceeded,
    /// `limits.wallClockMs`.
    WallClockExceeded,
    /// `limits.pids`.
    PidsExceeded,
    /// `limits.diskBytes`.
    DiskExceeded,
    /// `limits.outputBytes`.
    OutputExceeded,
    /// `interactive.idleTtlMs`.
    IdleTtlExceeded,
    /// `interactive.maxLifetimeMs`.
    MaxLifetimeExceeded,
    /// `interactive.turnBudgetMs`.
    TurnBudgetExceeded,
    /// A turn's timeout: it was interrupted, and did not stop.
    TurnTimeoutExceeded,
}

impl KillReason {
    /// The word in JSON, in the store and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CpuExceeded => "cpu_exceeded",
            Self::MemoryExceeded => "memory_exceeded",
            Self::WallClockExceeded => "wall_clock_exceeded",
            Self::PidsExceeded => "pids_exceeded",
            Self::DiskExceeded => "disk_exceeded",
            Self::OutputExceeded => "output_exceeded",
            Self::IdleTtlExceeded => "idle_ttl_exceeded",
            Self::MaxLifetimeExceeded => "max_lifetime_exceeded",
            Self::TurnBudgetExceeded => "turn_budget_exceeded",
            Self::TurnTimeoutExceeded => "turn_timeout_exceeded",
        }
    }
}

/// Why a session ended as `faulted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FaultCode {
    /// The sandbox could not be made ready.
    SandboxFailed,
    /// The sandbox ended without an exit of the workload.
    SandboxLost,
    /// `source` could not be cloned: it is not there, not allowed, or too large.
    CloneFailed,
    /// The process through which the session's traffic goes ended before the session did.
    GatewayLost,
    /// The runner inside the sandbox broke the protocol.
    ProtocolViolation,
    /// The server was restarted while the session was under way.
    ServerRestarted,
    /// The server shut down before the session could finish.
    ServerDrained,
    /// A member of a fleet that could not be started when its turn came.
    NotStarted,
    /// A fault of the server itself.
    Internal,
}

/// What failed on our side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionFault {
    /// For programs.
    pub code: FaultCode,
    /// In words; nothing internal.
    pub detail: String,
}

/// What the workload is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// CPython 3.
    #[default]
    Python,
    /// Node.js.
    Node,
}

impl Language {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
        }
    }
}

/// Whether the session runs one program or a conversation of turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecMode {
    /// One program, then the end.
    #[default]
    Oneshot,
    /// Turns, until it is deleted or a bound is reached.
    Interactive,
}

/// What a session used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// CPU time of the whole sandbox, user and system, in milliseconds.
    pub cpu_ms: u64,
    /// Highest memory use of the whole sandbox, in bytes.
    pub memory_peak_bytes: u64,
    /// From the start of the workload to its end, in milliseconds.
    pub wall_ms: u64,
    /// Bytes that went out and came in through the gateway.
    pub egress_bytes: u64,
}

/// The mechanism that enforces each part of the policy for one session or backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Enforcement {
    /// What stands between the workload and the host's kernel.
    #[schema(example = "gVisor sentry, platform systrap")]
    pub kernel: String,
    /// What keeps the workload from the network.
    #[schema(example = "no network: the sandbox has a loopback interface and nothing else")]
    pub egress: String,
    /// What bounds CPU rate and CPU time.
    pub cpu: String,
    /// What bounds memory.
    pub memory: String,
    /// What bounds processes and threads.
    pub pids: String,
    /// What bounds files.
    pub disk: String,
    /// What bounds the time.
    pub wall_clock: String,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The org that owns it.
    pub org_id: OrgId,
    /// Who asked for it: the id of a key or user; `dev` for unauthenticated calls of the dev profile.
    pub created_by: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Which limit ended it, when `outcome` is `killed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_reason: Option<KillReason>,
    /// What failed on our side, when `outcome` is `faulted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<SessionFault>,
    /// What the workload is written in.
    pub language: Language,
    /// One program or turns.
    pub exec_mode: ExecMode,
    /// Bounds of an interactive session, defaults filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interactive: Option<InteractiveView>,
    /// Name of the backend that runs it.
    #[schema(example = "gvisor")]
    pub backend: String,
    /// What isolates it from the host.
    pub isolation: Isolation,
    /// Name of the image its root file system comes from.
    pub image: String,
    /// Its limits, defaults filled in.
    pub limits: LimitsView,
    /// What it may reach.
    pub egress: Egress,
    /// Names or ids of the bindings it may use.
    pub service_bindings: Vec<String>,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
    /// Arguments of the workload.
    pub args: Vec<String>,
    /// Environment of the workload, as given.
    pub env: BTreeMap<String, String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When the workload started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When its outcome was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// When nothing of it was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub torn_down_at: Option<Timestamp>,
    /// What it used, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What enforces its policy.
    pub enforcement: Enforcement,
}

/// Limits with every default filled in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitsView {
    /// CPU rate, in cores; more is throttled.
    pub cpu: f64,
    /// CPU time in milliseconds, when bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_time_ms: Option<u64>,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Time in milliseconds.
    pub wall_clock_ms: u64,
    /// Processes and threads at once.
    pub pids: u32,
    /// Bytes in `/workspace` and `/tmp` together.
    pub disk_bytes: u64,
    /// Bytes of stdout and stderr together.
    pub output_bytes: u64,
}

/// Bounds of an interactive session, with every default filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InteractiveView {
    /// Time without a turn after which it ends.
    pub idle_ttl_ms: u64,
    /// Time after which it ends in any case.
    pub max_lifetime_ms: u64,
    /// Time after which a turn is interrupted.
    pub turn_timeout_ms: u64,
    /// Time that all turns together may take, when bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_budget_ms: Option<u64>,
}

impl From<LimitsView> for Limits {
    fn from(view: LimitsView) -> Self {
        Self {
            cpu: Some(view.cpu),
            cpu_time_ms: view.cpu_time_ms,
            memory_bytes: Some(view.memory_bytes),
            wall_clock_ms: Some(view.wall_clock_ms),
            pids: Some(view.pids),
            disk_bytes: Some(view.disk_bytes),
            output_bytes: Some(view.output_bytes),
        }
    }
}

/// One page of sessions, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionPage {
    /// The sessions.
    pub items: Vec<Session>,
    /// Give this as `cursor` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A file that the session left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Path below `/workspace`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the content, hex.
    pub sha256: String,
}

/// The artifacts of a session that are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactPage {
    /// All of them, by path; at most 1000.
    pub items: Vec<Artifact>,
}

/// Why a file that a glob means was not collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SkippedBecause {
    /// It is no regular file.
    NotAFile,
    /// It is larger than what one session may leave, or claims to be.
    TooLarge,
    /// There are more than one session may leave, or more to look through than is.
    TooMany,
    /// Its name is not UTF-8, has control characters, or is too long.
    Name,
    /// It could not be read, or not to its end.
    Unreadable,
    /// There was no time left.
    Late,
    /// The sandbox had ended with the workload.
    SandboxGone,
    /// The server could not keep it.
    StoreFailed,
}

/// What a glob means and was not collected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SkippedArtifact {
    /// Path below `/workspace`; `**` for whatever else there may be.
    pub path: String,
    /// Why.
    pub because: SkippedBecause,
}

/// Something that the policy refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Denial {
    /// What was asked for.
    #[schema(example = "connect tcp 169.254.169.254:80")]
    pub attempted: String,
    /// Why it was refused.
    pub reason: String,
    /// The rule that would allow it, if one can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_by: Option<String>,
}

/// What a finished session gave back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionResult {
    /// The session.
    pub session_id: SessionId,
    /// How it ended.
    pub outcome: Outcome,
    /// Which limit ended it, when `outcome` is `killed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_reason: Option<KillReason>,
    /// What failed on our side, when `outcome` is `faulted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<SessionFault>,
    /// The workload's exit code (128 + n when signal n ended it); null if it was killed.
    pub exit_code: Option<i32>,
    /// The JSON given to `enclave.result`; null if there was none.
    #[schema(value_type = Value)]
    pub result: Option<JsonText>,
    /// The last 64 KiB of standard output, as UTF-8 with replacement characters.
    pub stdout_tail: String,
    /// Whether there was more before it.
    pub stdout_truncated: bool,
    /// How many bytes there were before it.
    #[serde(default)]
    pub stdout_tail_offset: u64,
    /// The last 64 KiB of standard error, as UTF-8 with replacement characters.
    pub stderr_tail: String,
    /// Whether there was more before it.
    pub stderr_truncated: bool,
    /// How many bytes there were before it.
    #[serde(default)]
    pub stderr_tail_offset: u64,
    /// Collected files.
    pub artifacts: Vec<Artifact>,
    /// Files that were meant and not collected; at most 50 are told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts_skipped: Vec<SkippedArtifact>,
    /// What was used.
    pub usage: Usage,
    /// What was refused, and what would allow it.
    pub denials: Vec<Denial>,
}

impl SessionResult {
    /// What was given to `enclave.result`, to look into.
    pub fn value(&self) -> Option<serde_json::Value> {
        self.result.as_ref().map(JsonText::value)
    }
}
