//! What outlives the process: sessions and what is theirs, fleets, triggers, bindings, keys, the audit log, and messages to
//! be delivered.
//!
//! [`Store`] gives two handles. [`Tenant`] belongs to one org and is the only way to that org's rows; there is no query
//! without it. [`System`] is for recovery, the reaper and authentication, and reaches across orgs; its call sites are
//! few. Writes that must be seen together are one method: state, audit events and outbox messages change in one
//! transaction or not at all.
//!
//! Every implementation passes [`conformance`]; [`verify()`] checks an org's audit chain over any of them.

pub mod conformance;
mod error;
mod record;
pub mod sqlite;
mod verify;

use std::sync::Arc;

use async_trait::async_trait;
use model::audit::{Draft, Head};
use wire::{
    AuditEvent, BindingId, BindingPage, DeliveryId, DeliveryPage, Fleet, FleetId, FleetMemberPage, FleetPage,
    FleetResultPage, KeyId, OrgId, Session, SessionId, SessionPage, SessionResult, Timestamp, TriggerId, TriggerPage,
    TriggerRun, Turn, TurnPage, WebhookDelivery,
};

pub use error::{BindingError, CreateError, MemberError, NotFired, OpenError, StoreError, TriggerError, UpdateError};
pub use record::{
    Alone, AuditFilter, BindingChange, BindingFilter, BindingRecord, Claim, Claimed, Created, CreatedFleet,
    DeliveryFilter, DueTrigger, Firing, FleetChange, FleetFilter, Idempotency, KeptArtifact, KeyRecord, MemberFilter,
    NewFleet, NewSession, NextFiring, Old, Org, OutboxMessage, Seat, SessionFilter, Settled, Settlement,
    TURN_PAGE_BYTES, Task, TriggerChange, TriggerFilter, TriggerRecord, TurnFilter, TurnRecord, Unfinished, Unstarted,
    Update, Waited, WaitingFiring, WebhookSecretRecord,
};
pub use verify::{VerifyError, verify};

/// A database.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The handle to one org's rows.
    fn tenant(&self, org: OrgId) -> Arc<dyn Tenant>;

    /// The handle that reaches across orgs: recovery, the reaper, authentication.
    fn system(&self) -> Arc<dyn System>;

    /// Writes out what is pending and closes; later calls fail.
    async fn close(&self);
}

/// One org's rows. Everything that a method of this trait returns or changes belongs to that org.
#[async_trait]
pub trait Tenant: Send + Sync {
    /// Records a session together with its audit events; with an idempotency key, gives back the session that an earlier
    /// request with the same key made.
    async fn create_session(&self, new: NewSession) -> Result<Created, CreateError>;

    /// The session that an earlier request with this idempotency key made, if there was one. Writes nothing.
    async fn repeated(&self, idempotency: &Idempotency) -> Result<Option<Session>, CreateError>;

    /// Records a session's new state, its result and outbox messages if there are any, and the audit events of the
    /// change, which come back sealed.
    async fn update_session(&self, update: Update) -> Result<Vec<AuditEvent>, UpdateError>;

    /// The session, if this org has one of that id.
    async fn session(&self, id: SessionId) -> Result<Option<Session>, StoreError>;

    /// Sessions, newest first.
    async fn sessions(&self, filter: SessionFilter) -> Result<SessionPage, StoreError>;

    /// The result of a finished session.
    async fn result(&self, id: SessionId) -> Result<Option<SessionResult>, StoreError>;

    /// Records a turn, new or changed, together with its audit events, which come back sealed. One that has ended is never
    /// changed, and a session that is torn down gets none: both are [`UpdateError::NotLive`].
    async fn record_turn(&self, record: TurnRecord) -> Result<Vec<AuditEvent>, UpdateError>;

    /// The turn of that number, if this org has such a session and that has one.
    async fn turn(&self, session: SessionId, number: u32) -> Result<Option<Turn>, StoreError>;

    /// Turns of a session, in their order.
    async fn turns(&self, filter: TurnFilter) -> Result<TurnPage, StoreError>;

    /// The turns of a session that have not ended, in their order.
    async fn open_turns(&self, session: SessionId) -> Result<Vec<Turn>, StoreError>;

    /// Audit events in the order of the chain.
    async fn audit(&self, filter: AuditFilter) -> Result<Vec<AuditEvent>, StoreError>;

    /// Where the chain ends by the store's own record: every entry up to there was written.
    async fn audit_head(&self) -> Result<Head, StoreError>;

    /// Adds audit events that change no state.
    async fn append_audit(&self, drafts: Vec<Draft>) -> Result<Vec<AuditEvent>, StoreError>;

    /// Records a key together with its audit event.
    async fn create_key(&self, key: KeyRecord, draft: Draft) -> Result<(), StoreError>;

    /// The org's keys, newest first, revoked ones included.
    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError>;

    /// Revokes a key together with its audit event; false when the org has no such key that still works (then nothing is
    /// written).
    async fn revoke_key(&self, id: KeyId, draft: Draft) -> Result<bool, StoreError>;

    /// Changes the org's bindings, together with the audit events of the change.
    async fn change_binding(&self, change: BindingChange) -> Result<(), BindingError>;

    /// Bindings, by name.
    async fn bindings(&self, filter: BindingFilter) -> Result<BindingPage, StoreError>;

    /// The binding of that id, if this org has one.
    async fn binding(&self, id: BindingId) -> Result<Option<BindingRecord>, StoreError>;

    /// The artifacts of a session that are kept, by path.
    async fn artifacts(&self, session: SessionId) -> Result<Vec<KeptArtifact>, StoreError>;

    /// The artifact of that path, if it is kept.
    async fn artifact(&self, session: SessionId, path: &str) -> Result<Option<KeptArtifact>, StoreError>;

    /// Forgets a session's artifacts; its result still names them.
    async fn forget_artifacts(&self, session: SessionId) -> Result<(), StoreError>;

    /// The binding of that name, if this org has one.
    async fn binding_named(&self, name: &str) -> Result<Option<BindingRecord>, StoreError>;

    /// Deliveries of messages, newest first.
    async fn deliveries(&self, filter: DeliveryFilter) -> Result<DeliveryPage, StoreError>;

    /// The delivery of that id, if this org has one.
    async fn delivery(&self, id: DeliveryId) -> Result<Option<WebhookDelivery>, StoreError>;

    /// Begins another round of a delivery, whatever became of the one before; false when this org has none of that id.
    async fn retry_delivery(&self, id: DeliveryId, due: Timestamp, until: Timestamp) -> Result<bool, StoreError>;

    /// Records what became of an attempt, with the audit events of it; false when the attempt's lease is not the
    /// delivery's any more (then nothing is written).
    async fn settle_delivery(&self, settlement: Settlement) -> Result<bool, StoreError>;

    /// The secret that the org's messages are signed with, once there is one.
    async fn webhook_secret(&self) -> Result<Option<WebhookSecretRecord>, StoreError>;

    /// Records the next version of that secret, with its audit events; false when another one has this version already
    /// (then nothing is written).
    async fn set_webhook_secret(&self, record: WebhookSecretRecord, drafts: Vec<Draft>) -> Result<bool, StoreError>;

    /// Records a fleet together with its members and its audit events; with an idempotency key, gives back the fleet that
    /// an earlier request with the same key made.
    async fn create_fleet(&self, new: NewFleet) -> Result<CreatedFleet, CreateError>;

    /// The fleet that an earlier request with this idempotency key made, if there was one. Writes nothing.
    async fn repeated_fleet(&self, idempotency: &Idempotency) -> Result<Option<Fleet>, CreateError>;

    /// Records the session of a member whose turn has come; it is the member's from then on.
    async fn create_member(&self, seat: Seat, new: NewSession) -> Result<Vec<AuditEvent>, MemberError>;

    /// Changes a fleet. What has been done is done: a change that comes again, or too late, changes nothing.
    async fn change_fleet(&self, change: FleetChange) -> Result<(), StoreError>;

    /// The fleet, if this org has one of that id.
    async fn fleet(&self, id: FleetId) -> Result<Option<Fleet>, StoreError>;

    /// Fleets, newest first.
    async fn fleets(&self, filter: FleetFilter) -> Result<FleetPage, StoreError>;

    /// A fleet's members, in the order of the request.
    async fn fleet_members(&self, filter: MemberFilter) -> Result<FleetMemberPage, StoreError>;

    /// What they gave back. A page ends where it gets large.
    async fn fleet_results(&self, filter: MemberFilter) -> Result<FleetResultPage, StoreError>;

    /// What a member is to run.
    async fn fleet_task(&self, seat: Seat) -> Result<Option<Task>, StoreError>;

    /// How often a fleet's members have called service bindings, by the audit log.
    async fn fleet_binding_calls(&self, id: FleetId) -> Result<u64, StoreError>;

    /// Changes the org's triggers, together with the audit event of the change.
    async fn change_trigger(&self, change: TriggerChange) -> Result<(), TriggerError>;

    /// Triggers, by name.
    async fn triggers(&self, filter: TriggerFilter) -> Result<TriggerPage, StoreError>;

    /// The trigger of that id, if this org has one.
    async fn trigger(&self, id: TriggerId) -> Result<Option<TriggerRecord>, StoreError>;

    /// The last firings of a trigger, newest first.
    async fn trigger_runs(&self, id: TriggerId, limit: u32) -> Result<Vec<TriggerRun>, StoreError>;

    /// Records a firing that starts no session, or none yet, with its audit event.
    async fn record_firing(&self, unstarted: Unstarted) -> Result<TriggerRun, NotFired>;
}

/// Across orgs.
#[async_trait]
pub trait System: Send + Sync {
    /// Sessions that are not torn down: what recovery has to end.
    async fn unfinished(&self) -> Result<Vec<Unfinished>, StoreError>;

    /// Fleets that have not finished: what has to go on after a start.
    async fn unfinished_fleets(&self) -> Result<Vec<Fleet>, StoreError>;

    /// A key by its public id, of whatever org, for authentication. Revoked keys too.
    async fn key(&self, id: KeyId) -> Result<Option<KeyRecord>, StoreError>;

    /// The org of that name, made with `candidate` as its id if there is none.
    async fn ensure_org(&self, name: &str, candidate: OrgId) -> Result<Org, StoreError>;

    /// Every org.
    async fn orgs(&self) -> Result<Vec<Org>, StoreError>;

    /// Deletes what is old; gives how many rows that were. A bounded number of deliveries at a time.
    async fn forget(&self, old: Old) -> Result<u64, StoreError>;

    /// Every sealed secret, and in words whose it is: for the look, at the start, at which key they are sealed under.
    async fn sealed(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Takes deliveries that are due, each until the given time: nobody else is given them before. The first message of a
    /// session only, while others of it wait behind.
    async fn claim_deliveries(&self, claim: Claim) -> Result<Vec<Claimed>, StoreError>;

    /// When the next delivery falls due that is not due yet.
    async fn next_delivery(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError>;

    /// A trigger by its id, of whatever org: whoever calls one shows no other identity.
    async fn trigger(&self, id: TriggerId) -> Result<Option<TriggerRecord>, StoreError>;

    /// Triggers whose schedule has come, the longest due first.
    async fn due_triggers(&self, now: Timestamp, limit: u32) -> Result<Vec<DueTrigger>, StoreError>;

    /// When the next trigger fires that is not due yet.
    async fn next_trigger(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError>;

    /// Firings whose turn has come: of each trigger the one that has waited longest, if no session of its is under way.
    async fn waiting_firings(&self, limit: u32) -> Result<Vec<WaitingFiring>, StoreError>;

    /// Sessions whose artifacts were kept before that time, and the oldest of each org that has more than so many bytes,
    /// until it has no more than that. Oldest first; a bounded number.
    async fn surplus_artifacts(
        &self,
        before: wire::Timestamp,
        quota_bytes: u64,
    ) -> Result<Vec<(OrgId, SessionId)>, StoreError>;

    /// Whether anything of that session is kept, of whatever org: for the sweep of what nobody knows.
    async fn has_artifacts(&self, session: SessionId) -> Result<bool, StoreError>;

    /// Whether the database answers.
    async fn ping(&self) -> Result<(), StoreError>;
}
