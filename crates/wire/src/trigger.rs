//! Triggers: sessions started by a schedule or a call.

mod read;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{CreateSession, OrgId, SessionId, Timestamp, TriggerId};

/// What fires a trigger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum TriggerKind {
    /// A schedule.
    Schedule {
        /// Five fields: minute, hour, day of the month, month, day of the week.
        #[schema(example = "30 2 * * mon-fri")]
        cron: String,
        /// The time zone that they are of, by its name in the IANA database; UTC if absent.
        #[serde(default = "utc")]
        #[schema(example = "Europe/Berlin")]
        timezone: String,
    },
    /// A call to `/v1/hooks/{id}`, signed as Standard Webhooks has it.
    #[default]
    Webhook,
}

impl TriggerKind {
    /// The word in JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Schedule { .. } => "schedule",
            Self::Webhook => "webhook",
        }
    }
}

fn utc() -> String {
    "UTC".to_owned()
}

/// What becomes of a firing while a session of the trigger's has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It starts nothing.
    #[default]
    Skip,
    /// It starts a session beside the other.
    Allow,
    /// It waits until the other has ended; at most 16 wait.
    Queue,
}

/// A request for a trigger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateTrigger {
    /// 1 to 64 of letters, digits, `.`, `_` and `-`; unique in the org.
    #[schema(example = "nightly-report")]
    pub name: String,
    /// What fires it.
    pub kind: TriggerKind,
    /// What it starts.
    pub session: CreateSession,
    /// Whether it fires; true if absent.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// What becomes of a firing while a session of its has not ended.
    #[serde(default)]
    pub overlap: Overlap,
    /// `schedule`: each firing is late by up to so many milliseconds, so that many triggers do not start together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<u64>,
}

fn yes() -> bool {
    true
}

/// A change of a trigger. What is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateTrigger {
    /// Whether it fires from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// What fires it from now on; its type stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<TriggerKind>,
    /// What it starts from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<CreateSession>,
    /// What becomes of firings that overlap from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Overlap>,
    /// How late firings may be from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<u64>,
}

/// A trigger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trigger {
    /// Its id.
    pub id: TriggerId,
    /// The org that owns it.
    pub org_id: OrgId,
    /// Its name.
    pub name: String,
    /// What fires it.
    pub kind: TriggerKind,
    /// What it starts.
    pub session: CreateSession,
    /// Whether it fires.
    pub enabled: bool,
    /// What becomes of a firing while a session of its has not ended.
    pub overlap: Overlap,
    /// How late firings may be, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<u64>,
    /// `webhook`: how often its secret was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_version: Option<u64>,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// `schedule`: when it fires next, if it is enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_fire_at: Option<Timestamp>,
}

/// A trigger that was just made, or whose secret was: the only answers that ever hold one.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriggerWithSecret {
    /// The trigger.
    #[serde(flatten)]
    pub trigger: Trigger,
    /// `webhook`: what calls are signed with, `whsec_` and base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "whsec_<base64 of 32 random bytes>")]
    pub secret: Option<String>,
}

impl std::fmt::Debug for TriggerWithSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TriggerWithSecret").field("trigger", &self.trigger).finish_non_exhaustive()
    }
}

/// One page of triggers, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriggerPage {
    /// The triggers.
    pub items: Vec<Trigger>,
    /// Give this as `cursor` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// What fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FiringCause {
    /// The schedule.
    Schedule,
    /// A signed call.
    Webhook,
    /// Somebody, by hand.
    Manual,
}

impl FiringCause {
    /// The word in JSON and in the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Webhook => "webhook",
            Self::Manual => "manual",
        }
    }
}

/// What became of a firing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FiringOutcome {
    /// It started a session.
    Started,
    /// It waits for a session of the trigger's to end.
    Queued,
    /// A session of the trigger's had not ended, or too many were waiting already.
    Skipped,
    /// The deployment refuses the session; `detail` says why.
    Refused,
}

impl FiringOutcome {
    /// The word in JSON, in the store and in the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Queued => "queued",
            Self::Skipped => "skipped",
            Self::Refused => "refused",
        }
    }
}

/// One firing of a trigger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriggerRun {
    /// What fired.
    pub cause: FiringCause,
    /// The moment that it was due at.
    pub due_at: Timestamp,
    /// When it was taken up.
    pub fired_at: Timestamp,
    /// What became of it.
    pub outcome: FiringOutcome,
    /// The session that it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// Why it started none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The last firings of a trigger, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriggerRuns {
    /// The firings.
    pub items: Vec<TriggerRun>,
}
