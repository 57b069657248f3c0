//! Deliveries of messages, and the secrets that they are signed with.

use model::audit::Draft;
use wire::{DeliveryId, DeliveryStatus, OrgId, SessionId, Timestamp, WebhookAttempt};

/// Which deliveries to list.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    /// `nextCursor` of the page before. Opaque; only this org's are accepted.
    pub cursor: Option<String>,
    /// How many at most; the caller bounds it.
    pub limit: u32,
    /// Only those of this session.
    pub session: Option<SessionId>,
    /// Only those that are in this status.
    pub status: Option<DeliveryStatus>,
}

/// Which deliveries to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What is due by then.
    pub now: Timestamp,
    /// How long they are the taker's.
    pub until: Timestamp,
    /// The taker's name for this taking; no other taking has it.
    pub lease: String,
    /// How many at most.
    pub limit: u32,
    /// How many of one org at most, with those that are taken already.
    pub per_org: u32,
}

/// A delivery that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The org that it is of.
    pub org: OrgId,
    /// Its id.
    pub id: DeliveryId,
    /// The session that it tells of.
    pub session: SessionId,
    /// Where to.
    pub url: String,
    /// What to deliver.
    pub payload: String,
    /// How often it was tried, over all rounds.
    pub attempts: u32,
    /// How often it was tried in this round.
    pub tries: u32,
    /// When this round is given up.
    pub until: Timestamp,
}

/// What an attempt leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The receiver took it.
    Delivered,
    /// It is given up.
    Failed,
    /// It is tried again then.
    Again(Timestamp),
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Settlement {
    /// Of which delivery.
    pub id: DeliveryId,
    /// The taking under which it was made.
    pub lease: String,
    /// The attempt.
    pub attempt: WebhookAttempt,
    /// What it leads to.
    pub settled: Settled,
    /// When that was.
    pub now: Timestamp,
    /// Audit events that go with it.
    pub drafts: Vec<Draft>,
}

/// The secret that an org's messages are signed with, sealed; the store cannot open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookSecretRecord {
    /// Counts them, from 1.
    pub version: u64,
    /// The secret.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The one before it, and until when messages are signed with it too.
    pub previous: Option<(Vec<u8>, Timestamp)>,
}
