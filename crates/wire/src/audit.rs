//! The audit log, as callers see it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{SessionId, Timestamp};

/// Who saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditSource {
    /// The control plane. Trusted.
    Platform,
    /// The gateway. Trusted.
    Gateway,
    /// The runner, from inside the sandbox: a hint.
    Runner,
}

macro_rules! audit_types {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)+) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum AuditType {
            $($(#[$doc])* $variant,)+
        }

        impl AuditType {
            /// Every type there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in JSON and in the store.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

audit_types! {
    /// A session was accepted.
    SessionCreated = "session_created",
    /// A session was refused before anything started: its policy cannot be enforced here.
    SessionRefused = "session_refused",
    /// A sandbox was made ready for the session.
    SandboxProvisioned = "sandbox_provisioned",
    /// The workload started.
    SandboxStarted = "sandbox_started",
    /// A connection was allowed.
    EgressAllowed = "egress_allowed",
    /// A connection was refused.
    EgressDenied = "egress_denied",
    /// A binding was used.
    BindingInvoked = "binding_invoked",
    /// The use of a binding was refused.
    BindingDenied = "binding_denied",
    /// A repository is being cloned.
    CloneStarted = "clone_started",
    /// A repository was cloned.
    CloneCompleted = "clone_completed",
    /// A repository could not be cloned.
    CloneFailed = "clone_failed",
    /// A turn started.
    TurnStarted = "turn_started",
    /// A turn ended.
    TurnCompleted = "turn_completed",
    /// A file was put into the sandbox.
    FileWritten = "file_written",
    /// A file was taken out of the sandbox.
    FileRead = "file_read",
    /// A terminal was opened.
    TerminalOpened = "terminal_opened",
    /// A terminal's program has ended, by itself, by a caller, or with its session.
    TerminalClosed = "terminal_closed",
    /// A session was forked.
    SessionForked = "session_forked",
    /// A session's memory was put away.
    SessionPaused = "session_paused",
    /// A session's memory was brought back.
    SessionResumed = "session_resumed",
    /// A limit ended the session.
    QuotaKilled = "quota_killed",
    /// The workload ended, by itself, by the caller, or by a fault of ours.
    WorkloadExited = "workload_exited",
    /// The result was recorded.
    ResultCollected = "result_collected",
    /// A file was collected.
    ArtifactCollected = "artifact_collected",
    /// A webhook was delivered.
    WebhookDelivered = "webhook_delivered",
    /// A webhook could not be delivered.
    WebhookFailed = "webhook_failed",
    /// The org's webhook messages are signed with another secret.
    WebhookSecretRotated = "webhook_secret_rotated",
    /// Nothing of the session is left.
    SessionTornDown = "session_torn_down",
    /// Something of the session was left after a try to reclaim it.
    ResidueFound = "residue_found",
    /// A fleet was accepted.
    FleetCreated = "fleet_created",
    /// A fleet ended.
    FleetFinished = "fleet_finished",
    /// A trigger was made.
    TriggerCreated = "trigger_created",
    /// A trigger was changed, or its secret was replaced.
    TriggerUpdated = "trigger_updated",
    /// A trigger was deleted.
    TriggerDeleted = "trigger_deleted",
    /// A trigger fired.
    TriggerFired = "trigger_fired",
    /// A binding was made.
    BindingCreated = "binding_created",
    /// A binding was changed.
    BindingUpdated = "binding_updated",
    /// A binding's secret was replaced.
    BindingRotated = "binding_rotated",
    /// A binding was deleted.
    BindingDeleted = "binding_deleted",
    /// An API key was made.
    KeyCreated = "key_created",
    /// An API key was revoked.
    KeyRevoked = "key_revoked",
    /// A member was added to the org.
    MemberAdded = "member_added",
    /// A member's role was changed.
    MemberRoleChanged = "member_role_changed",
    /// A member was removed from the org.
    MemberRemoved = "member_removed",
    /// Somebody signed in.
    LoginSucceeded = "login_succeeded",
    /// Somebody failed to sign in.
    LoginFailed = "login_failed",
    /// A known caller was refused.
    AccessDenied = "access_denied",
}

/// One entry of an org's append-only, hash-chained log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// Position in the org's log, from 1, without gaps.
    pub seq: u64,
    /// When.
    pub ts: Timestamp,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: AuditType,
    /// In which session, if in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// Who caused it: a key, a user, `dev`, or `platform`.
    pub actor: String,
    /// Who saw it.
    pub source: AuditSource,
    /// Details, by type. Never holds a secret, and no floating-point numbers.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
    /// Hash of the entry before, hex; 64 zeros for the first.
    pub prev_hash: String,
    /// SHA-256 of this entry's canonical JSON without `hash`, hex.
    pub hash: String,
}

/// The audit events of one session, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditPage {
    /// The events.
    pub items: Vec<AuditEvent>,
    /// Give this as `cursor` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_written_the_same_in_json_and_in_the_store() {
        for kind in AuditType::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
