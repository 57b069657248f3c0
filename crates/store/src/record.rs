//! What goes in and comes out.

use model::audit::Draft;
use wire::{
    Artifact, AuditEvent, Binding, BindingId, DeliveryId, Fleet, FleetEndReason, FleetId, KeyId, MemberPhase, OrgId,
    Phase, Role, Scope, Session, SessionFault, SessionId, SessionResult, Timestamp, Turn, WebhookEventType,
};

mod triggers;
mod webhooks;

pub use triggers::{
    Alone, DueTrigger, Firing, NextFiring, TriggerChange, TriggerFilter, TriggerRecord, Unstarted, Waited,
    WaitingFiring,
};
pub use webhooks::{Claim, Claimed, DeliveryFilter, Settled, Settlement, WebhookSecretRecord};

/// A session to record.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The session, in phase `pending`. Its `org_id` is the tenant's.
    pub session: Session,
    /// The caller's idempotency key.
    pub idempotency: Option<Idempotency>,
    /// Audit events of the creation.
    pub drafts: Vec<Draft>,
    /// Where to tell that it ended.
    pub webhook_url: Option<String>,
    /// The firing of a trigger that starts it: it is recorded with it, and if it cannot be, nothing is.
    pub firing: Option<Firing>,
}

/// An idempotency key of an org.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The caller's key.
    pub key: String,
    /// SHA-256 of the request, hex: the same key with another request is a conflict.
    pub request_digest: String,
}

/// What may be forgotten: of each kind what is from before that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Old {
    /// Idempotency keys, by when they were given.
    pub keys: Timestamp,
    /// Deliveries, by when they were over.
    pub deliveries: Timestamp,
}

/// What became of a creation.
#[derive(Clone, Debug)]
pub enum Created {
    /// Recorded; these are its audit events.
    New(Vec<AuditEvent>),
    /// An earlier request with the same key made this session; nothing was written.
    Existing(Box<Session>),
}

/// A session's new state.
#[derive(Clone, Debug)]
pub struct Update {
    /// The session as it is now. A session that is torn down in the store is never updated again.
    pub session: Session,
    /// Name of its sandbox, once it has one; absent leaves the recorded one.
    pub sandbox: Option<String>,
    /// Its result, when this is its end.
    pub result: Option<SessionResult>,
    /// Audit events of the change, in order.
    pub drafts: Vec<Draft>,
    /// Messages to deliver because of the change.
    pub outbox: Vec<OutboxMessage>,
    /// Files that it left and that are kept, when this is its end. Each has its place in this list as its number.
    pub artifacts: Vec<Artifact>,
}

/// A file that a session left and that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptArtifact {
    /// What it is.
    pub artifact: Artifact,
    /// Under which its content is kept, beside the session's id.
    pub number: u32,
}

/// A message to be delivered outside of the transaction, at least once. Those of one session go in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxMessage {
    /// Its delivery's id.
    pub id: DeliveryId,
    /// The session that it tells of.
    pub session: SessionId,
    /// What it tells of it.
    pub kind: WebhookEventType,
    /// Where to.
    pub url: String,
    /// What to deliver, JSON text.
    pub payload: String,
    /// When it was made; it is due at once.
    pub created_at: Timestamp,
    /// When it is given up.
    pub until: Timestamp,
}

/// Which sessions to list.
#[derive(Clone, Debug, Default)]
pub struct SessionFilter {
    /// `nextCursor` of the page before. Opaque; only this org's are accepted.
    pub cursor: Option<String>,
    /// How many at most; the caller bounds it.
    pub limit: u32,
    /// Only those in this phase.
    pub phase: Option<Phase>,
    /// Only those that have all of these labels.
    pub labels: Vec<(String, String)>,
}

/// A turn as it is now.
#[derive(Clone, Debug)]
pub struct TurnRecord {
    /// The turn.
    pub turn: Turn,
    /// Audit events of the change, in order.
    pub drafts: Vec<Draft>,
}

/// Bytes of turns after which a page ends, however few they are: several of the largest, and little enough to be held for
/// each of many readers.
pub const TURN_PAGE_BYTES: usize = 8 * 1024 * 1024;

/// Which turns to list.
#[derive(Clone, Debug)]
pub struct TurnFilter {
    /// Of this session.
    pub session: SessionId,
    /// `nextCursor` of the page before. Opaque; only this session's are accepted.
    pub cursor: Option<String>,
    /// How many at most; the caller bounds it. There are fewer when they are large.
    pub limit: u32,
}

/// Which audit events to list.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only this session's.
    pub session: Option<SessionId>,
    /// Only those behind this position of the chain.
    pub after_seq: u64,
    /// How many at most.
    pub limit: u32,
}

/// A binding as stored: its secret is sealed, and the store cannot open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingRecord {
    /// The binding. Its `org_id` is the tenant's.
    pub binding: Binding,
    /// Its secret, sealed.
    pub sealed: Vec<u8>,
    /// Counts its changes. An update carries the revision that it was decided on.
    pub revision: u64,
}

/// A change of an org's bindings, with the audit events that go with it.
#[derive(Clone, Debug)]
pub enum BindingChange {
    /// A new one; its name is unique in the org.
    Create {
        /// What it is.
        record: BindingRecord,
        /// Its audit event.
        draft: Draft,
    },
    /// One that is there gets this content, if its revision is still the one given. Its name stays.
    Update {
        /// What it becomes, with the revision that it has now.
        record: BindingRecord,
        /// Audit events of the change, in order.
        drafts: Vec<Draft>,
    },
    /// One that is there goes, and its secret with it.
    Delete {
        /// Which.
        id: BindingId,
        /// Its audit event.
        draft: Draft,
    },
}

/// Which bindings to list.
#[derive(Clone, Debug, Default)]
pub struct BindingFilter {
    /// `nextCursor` of the page before. Opaque; only this org's are accepted.
    pub cursor: Option<String>,
    /// How many at most; the caller bounds it.
    pub limit: u32,
    /// Only the one of this name.
    pub name: Option<String>,
}

/// An API key as stored: never the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its public id.
    pub id: KeyId,
    /// Its org.
    pub org: OrgId,
    /// What its maker called it.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// The scopes to which it was narrowed, if it was.
    pub scopes: Option<Vec<Scope>>,
    /// Keyed hash of its secret, hex.
    pub secret_hash: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

/// An org.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Org {
    /// Its id.
    pub id: OrgId,
    /// Its name, unique.
    pub name: String,
}

/// A session that recovery has to end.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// The session.
    pub session: Session,
    /// Its sandbox, if it had one.
    pub sandbox: Option<String>,
    /// Where to tell that it ended.
    pub webhook_url: Option<String>,
}

/// A fleet to record, with all of its members.
#[derive(Clone, Debug)]
pub struct NewFleet {
    /// The fleet, in phase `pending`. Its `org_id` is the tenant's.
    pub fleet: Fleet,
    /// What every member is, JSON text, when they differ in their inputs alone.
    pub template: Option<String>,
    /// In the order of the request: their inputs if there is a template, else their requests. JSON text.
    pub tasks: Vec<String>,
    /// The caller's idempotency key.
    pub idempotency: Option<Idempotency>,
    /// Audit events of the creation.
    pub drafts: Vec<Draft>,
}

/// What became of the creation of a fleet.
#[derive(Clone, Debug)]
pub enum CreatedFleet {
    /// Recorded.
    New,
    /// An earlier request with the same key made this one; nothing was written.
    Existing(Box<Fleet>),
}

/// One member of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The fleet.
    pub fleet: FleetId,
    /// The member's place in it.
    pub index: u32,
}

/// A change of a fleet that has not finished. Of one that has, nothing changes any more.
#[derive(Clone, Debug)]
pub enum FleetChange {
    /// It is ended: members that have no session get none any more, and those whose session has not ended are marked.
    EndedBy {
        /// Which.
        id: FleetId,
        /// Why.
        reason: FleetEndReason,
    },
    /// A member could not be started, or what became of it is not known.
    Fault {
        /// Which.
        seat: Seat,
        /// Why.
        fault: SessionFault,
    },
    /// It has finished.
    Finish {
        /// What it is now.
        fleet: Box<Fleet>,
        /// Its audit event.
        draft: Draft,
    },
}

/// Which fleets to list.
#[derive(Clone, Debug, Default)]
pub struct FleetFilter {
    /// `nextCursor` of the page before. Opaque; only this org's are accepted.
    pub cursor: Option<String>,
    /// How many at most; the caller bounds it.
    pub limit: u32,
}

/// Which members of a fleet to list.
#[derive(Clone, Debug)]
pub struct MemberFilter {
    /// Of which fleet.
    pub fleet: FleetId,
    /// `nextCursor` of the page before. Opaque; only this fleet's are accepted.
    pub cursor: Option<String>,
    /// How many at most; the caller bounds it.
    pub limit: u32,
    /// Only those in this phase.
    pub phase: Option<MemberPhase>,
}

/// What a member of a fleet is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// What every member is, if the fleet has a template.
    pub template: Option<String>,
    /// The member's input if it has, else its request.
    pub task: String,
}
