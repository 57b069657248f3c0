//! What goes in and comes out.

use model::audit::Draft;
use wire::{
    Artifact, AuditEvent, Binding, BindingId, KeyId, OrgId, Phase, Role, Scope, Session, SessionId, SessionResult,
    Timestamp,
};

/// A session to record.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The session, in phase `pending`. Its `org_id` is the tenant's.
    pub session: Session,
    /// The caller's idempotency key.
    pub idempotency: Option<Idempotency>,
    /// Audit events of the creation.
    pub drafts: Vec<Draft>,
}

/// An idempotency key of an org.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The caller's key.
    pub key: String,
    /// SHA-256 of the request, hex: the same key with another request is a conflict.
    pub request_digest: String,
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

/// Something to be delivered outside of the transaction, at least once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxMessage {
    /// Which deliverer takes it.
    pub topic: String,
    /// What to deliver, JSON text.
    pub payload: String,
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
}
