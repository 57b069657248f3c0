//! Webhooks out: what receivers are told, and what became of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{DeliveryId, KillReason, OrgId, Outcome, SessionFault, SessionId, Timestamp, Usage};

/// What a message tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum WebhookEventType {
    /// A session has ended; its result can be read.
    #[serde(rename = "session.finished")]
    SessionFinished,
}

impl WebhookEventType {
    /// The word in JSON and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SessionFinished => "session.finished",
        }
    }
}

/// The body of a message. Small: it holds neither output nor the result, which are read with the session's id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookEvent {
    /// What it tells of.
    #[serde(rename = "type")]
    pub kind: WebhookEventType,
    /// When that happened.
    pub timestamp: Timestamp,
    /// The details.
    pub data: SessionFinished,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionFinished {
    /// The session.
    pub session_id: SessionId,
    /// The org that owns it.
    pub org_id: OrgId,
    /// How it ended.
    pub outcome: Outcome,
    /// Which limit ended it, when `outcome` is `killed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_reason: Option<KillReason>,
    /// What failed on our side, when `outcome` is `faulted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<SessionFault>,
    /// The workload's exit code; null if it was killed.
    pub exit_code: Option<i32>,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When the workload started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When its outcome was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// What it used.
    pub usage: Usage,
}

/// Where a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    /// It is tried, or will be again.
    Pending,
    /// The receiver took it.
    Delivered,
    /// It was given up: 24 hours have passed, or the receiver said that it is gone.
    Failed,
}

impl DeliveryStatus {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Failed];

    /// The word in JSON and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

/// One attempt to deliver a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookAttempt {
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// The status that the receiver answered with, if it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 500)]
    pub status: Option<u16>,
    /// Why it was no delivery, in words; absent if it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The beginning of what the receiver answered, without control characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
}

/// A message, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// The message's id, as its receiver sees it in the header `webhook-id`: the same at each attempt.
    #[schema(example = "msg_01890a5dac96774bbcceb302099a8057")]
    pub message_id: String,
    /// The session that it tells of.
    pub session_id: SessionId,
    /// What it tells of it.
    #[serde(rename = "type")]
    pub kind: WebhookEventType,
    /// Where it goes.
    pub url: String,
    /// Where it is.
    pub status: DeliveryStatus,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it is tried next, while it is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// The last attempt, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<WebhookAttempt>,
    /// When it was delivered or given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

/// One page of deliveries, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryPage {
    /// The deliveries.
    pub items: Vec<WebhookDelivery>,
    /// Give this as `cursor` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// What can be told of the secret that an org's messages are signed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookSecretView {
    /// How often it was made; 0 when there is none yet.
    pub version: u64,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// Until when messages are signed with the secret before it as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_until: Option<Timestamp>,
}

/// A new secret: the only answer that ever holds it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotatedWebhookSecret {
    /// The secret itself: `whsec_` and base64, as Standard Webhooks has it.
    #[schema(example = "whsec_<base64 of 32 random bytes>")]
    pub secret: String,
    /// How often it was made.
    pub version: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when messages are signed with the secret before it as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_until: Option<Timestamp>,
}

impl std::fmt::Debug for RotatedWebhookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RotatedWebhookSecret").field("version", &self.version).finish_non_exhaustive()
    }
}
