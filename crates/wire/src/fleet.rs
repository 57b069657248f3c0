//! Fleets: many sessions as one unit.

mod read;

pub use read::ENOUGH_FAULTS;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    CreateSession, FleetId, FrameKind, JsonText, KillReason, OrgId, Outcome, SessionFault, SessionId, Timestamp, Usage,
};

/// Members of one fleet: a row each, and little more in memory.
pub const MAX_FLEET_MEMBERS: usize = 10_000;
/// Bytes of one input. What is larger belongs into files.
pub const MAX_FLEET_INPUT_BYTES: usize = 256 * 1024;

/// A request for a fleet.
// Read by `parse` alone: an input is kept as its text, which serde cannot do inside of a choice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateFleet {
    /// What to call it; need not be unique.
    #[schema(example = "shards of the nightly index", min_length = 1, max_length = 128)]
    pub name: String,
    /// What runs.
    pub members: FleetMembers,
    /// Members that may hold a sandbox at the same time; as many as the deployment runs when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_concurrency: Option<u32>,
    /// What all members together may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<FleetBudget>,
    /// When it has succeeded.
    #[serde(default)]
    pub completion: Completion,
    /// The caller's own labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What runs: a list of sessions, or one session with many inputs.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum FleetMembers {
    /// Each its own request; at most 10 000.
    Listed(Vec<CreateSession>),
    /// The same for all, but for the input.
    Template(Box<FleetTemplate>),
}

impl Default for FleetMembers {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

/// One member for each input. It finds it in `/workspace/input.json` and as `enclave.input`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetTemplate {
    /// What every member is.
    pub template: CreateSession,
    /// What each of them gets: any JSON, at most 256 KiB each.
    #[schema(value_type = Vec<Value>, min_items = 1, max_items = 10_000)]
    pub inputs: Vec<JsonText>,
}

/// When a fleet has succeeded: `"all"`, `"first_success"` or `{"quorum": n}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Completion {
    /// When every member has.
    #[default]
    All,
    /// When one member has; the rest is cancelled.
    FirstSuccess,
    /// When so many members have; the rest is cancelled.
    Quorum(u32),
}

/// What all members of a fleet together may use. What is absent is not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FleetBudget {
    /// CPU time in milliseconds. A member's own limit is lowered to what is left when it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// Time of members in milliseconds, each counted from its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
    /// Bytes through gateways, in both directions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_bytes: Option<u64>,
    /// Calls of service bindings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding_calls: Option<u64>,
}

/// What a fleet's members have used: of those that run, what is known so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetUsage {
    /// CPU time in milliseconds, of members that have ended.
    pub cpu_ms: u64,
    /// Time in milliseconds, of members that have ended.
    pub wall_ms: u64,
    /// Bytes through gateways.
    pub egress_bytes: u64,
    /// Calls of service bindings.
    pub binding_calls: u64,
}

/// Where a fleet is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FleetPhase {
    /// No member has run yet.
    Pending,
    /// Members run, or wait for their turn.
    Running,
    /// Its completion is met, and no member runs any more.
    Succeeded,
    /// Its completion could not be met, and no member runs any more.
    Failed,
    /// A budget or a cancellation ended it, and no member runs any more.
    Killed,
}

impl FleetPhase {
    /// The word in JSON and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Killed => "killed",
        }
    }

    /// Whether nothing follows.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Pending | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Killed => true,
        }
    }
}

/// Why a fleet ended before its members had by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FleetEndReason {
    /// Its completion was met; the rest was not needed any more.
    CompletionMet,
    /// Somebody cancelled it.
    Cancelled,
    /// `budget.cpuMs`.
    CpuBudgetExceeded,
    /// `budget.wallMs`.
    WallBudgetExceeded,
    /// `budget.egressBytes`.
    EgressBudgetExceeded,
    /// `budget.bindingCalls`.
    BindingBudgetExceeded,
}

impl FleetEndReason {
    /// The word in JSON and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CompletionMet => "completion_met",
            Self::Cancelled => "cancelled",
            Self::CpuBudgetExceeded => "cpu_budget_exceeded",
            Self::WallBudgetExceeded => "wall_budget_exceeded",
            Self::EgressBudgetExceeded => "egress_budget_exceeded",
            Self::BindingBudgetExceeded => "binding_budget_exceeded",
        }
    }
}

/// Where a member of a fleet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberPhase {
    /// It waits for its turn, and has no session yet.
    Queued,
    /// It has a session whose sandbox is not ready.
    Pending,
    /// Its workload runs.
    Running,
    /// Exit code 0.
    Succeeded,
    /// Any other exit code, or a fault of ours.
    Failed,
    /// A limit, the fleet or a caller ended it.
    Killed,
    /// The fleet ended before its turn came; it never ran.
    Skipped,
}

impl MemberPhase {
    /// Every one.
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Pending, Self::Running, Self::Succeeded, Self::Failed, Self::Killed, Self::Skipped];

    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Killed => "killed",
            Self::Skipped => "skipped",
        }
    }

    /// Whether it has ended, or never will begin.
    pub fn is_over(self) -> bool {
        match self {
            Self::Queued | Self::Pending | Self::Running => false,
            Self::Succeeded | Self::Failed | Self::Killed | Self::Skipped => true,
        }
    }
}

/// How many members are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetCounts {
    /// All of them.
    pub total: u32,
    /// Waiting for their turn.
    pub queued: u32,
    /// With a session whose sandbox is not ready.
    pub pending: u32,
    /// Running.
    pub running: u32,
    /// Exit code 0.
    pub succeeded: u32,
    /// Any other exit code, or a fault of ours.
    pub failed: u32,
    /// Ended by a limit, by the fleet or by a caller.
    pub killed: u32,
    /// Never run.
    pub skipped: u32,
}

/// A fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fleet {
    /// Its id.
    pub id: FleetId,
    /// The org that owns it.
    pub org_id: OrgId,
    /// Who asked for it.
    pub created_by: String,
    /// What its maker called it.
    pub name: String,
    /// Where it is in its life.
    pub phase: FleetPhase,
    /// What ended it, if not its members by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<FleetEndReason>,
    /// When it has succeeded.
    pub completion: Completion,
    /// Members that may hold a sandbox at the same time, if it asked for a ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
    /// What all members together may use, if that is bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<FleetBudget>,
    /// What they have used.
    pub used: FleetUsage,
    /// How many members are where.
    pub counts: FleetCounts,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When its first member started to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When its last member had ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

/// A member of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetMember {
    /// Its place in the request, from 0.
    pub index: u32,
    /// Its session, once its turn has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// Where it is.
    pub phase: MemberPhase,
    /// How its session ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Which limit ended it, when `outcome` is `killed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_reason: Option<KillReason>,
    /// What failed on our side, or why it could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<SessionFault>,
    /// Why the fleet ended or skipped it, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<FleetEndReason>,
    /// When its workload started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When its outcome was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// What it used, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What a member gave back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetResult {
    /// Its place in the request, from 0.
    pub index: u32,
    /// Its session, once its turn has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// Where it is.
    pub phase: MemberPhase,
    /// How its session ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Its workload's exit code; null if there is none.
    pub exit_code: Option<i32>,
    /// The JSON that it gave to `enclave.result`; null if there was none.
    #[schema(value_type = Value)]
    pub result: Option<JsonText>,
}

macro_rules! pages {
    ($($(#[$doc:meta])* $name:ident of $item:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// What is on the page.
            pub items: Vec<$item>,
            /// Give this as `cursor` to get the next page; absent on the last one.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub next_cursor: Option<String>,
        }
    )+};
}

pages! {
    /// One page of fleets, newest first.
    FleetPage of Fleet;
    /// One page of a fleet's members, in the order of the request.
    FleetMemberPage of FleetMember;
    /// One page of results, in the order of the request.
    FleetResultPage of FleetResult;
}

/// How far a fleet is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetProgress {
    /// Where it is in its life.
    pub phase: FleetPhase,
    /// What ended it, if not its members by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<FleetEndReason>,
    /// How many members are where.
    pub counts: FleetCounts,
    /// What they have used.
    pub used: FleetUsage,
}

/// The last frame: nothing follows for this fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetEnd {
    /// How it ended.
    pub phase: FleetPhase,
}

/// One frame of a fleet's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum FleetFrame {
    /// `event: member`
    Member(Box<FleetMember>),
    /// `event: progress`
    Progress(FleetProgress),
    /// `event: end`
    End(FleetEnd),
}

impl FleetFrame {
    /// The `event:` line.
    pub fn kind(&self) -> FrameKind {
        match self {
            Self::Member(_) => FrameKind::Member,
            Self::Progress(_) => FrameKind::Progress,
            Self::End(_) => FrameKind::End,
        }
    }

    /// Reads a frame from its `event:` and `data:` lines; none for a kind that this version does not know.
    pub fn parse(kind: &str, data: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match kind {
            "member" => Self::Member(serde_json::from_str(data)?),
            "progress" => Self::Progress(serde_json::from_str(data)?),
            "end" => Self::End(serde_json::from_str(data)?),
            _ => return Ok(None),
        }))
    }
}
