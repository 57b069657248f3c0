//! Triggers and their firings.

use model::audit::Draft;
use wire::{FiringCause, FiringOutcome, OrgId, Timestamp, Trigger, TriggerId};

/// A trigger as stored: its secret is sealed, and the store cannot open it.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerRecord {
    /// The trigger. Its `org_id` is the tenant's; its `next_fire_at` is that of `next`.
    pub trigger: Trigger,
    /// What calls are signed with, sealed.
    pub sealed: Option<Vec<u8>>,
    /// Counts its changes. An update carries the revision that it was decided on.
    pub revision: u64,
    /// When it fires by itself.
    pub next: Option<NextFiring>,
}

/// A firing to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextFiring {
    /// The moment that it is due at.
    pub due: Timestamp,
    /// When it starts.
    pub at: Timestamp,
}

/// A change of an org's triggers, with the audit events that go with it.
#[derive(Clone, Debug)]
pub enum TriggerChange {
    /// A new one; its name is unique in the org.
    Create {
        /// What it is.
        record: TriggerRecord,
        /// Its audit event.
        draft: Draft,
    },
    /// One that is there gets this content, if its revision is still the one given. Its name stays.
    Update {
        /// What it becomes, with the revision that it has now.
        record: TriggerRecord,
        /// Its audit event.
        draft: Draft,
    },
    /// One that is there goes, with its secret and its firings.
    Delete {
        /// Which.
        id: TriggerId,
        /// Its audit event.
        draft: Draft,
    },
}

/// Which triggers to list.
#[derive(Clone, Debug, Default)]
pub struct TriggerFilter {
    /// `nextCursor` of the page before. Opaque; only this org's are accepted.
    pub cursor: Option<String>,
    /// How many at most; the caller bounds it.
    pub limit: u32,
}

/// A firing that is taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firing {
    /// Of which trigger.
    pub trigger: TriggerId,
    /// What makes it one: no other firing of the trigger has it.
    pub key: String,
    /// What fired.
    pub cause: FiringCause,
    /// The moment that it was due at.
    pub due: Timestamp,
    /// When it is taken up.
    pub now: Timestamp,
    /// Whether it may start a session beside another.
    pub alone: Alone,
    /// Whether it waited before.
    pub waited: Waited,
    /// When the trigger fires next, if this is a firing of its schedule.
    pub next: Option<NextFiring>,
    /// The message that called, and for how long it is remembered.
    pub message: Option<(String, Timestamp)>,
}

/// Whether a firing starts a session only when no other of its trigger's is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alone {
    /// Only then.
    Needed,
    /// In any case.
    NotNeeded,
}

/// Whether a firing was recorded before as one that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// It was.
    Yes,
    /// It is taken up for the first time.
    No,
}

/// A firing that starts no session, or none yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Unstarted {
    /// The firing.
    pub firing: Firing,
    /// What becomes of it. One that is to wait is skipped when too many wait already.
    pub outcome: FiringOutcome,
    /// Why.
    pub detail: Option<String>,
    /// What the caller sent, for one that waits.
    pub body: Option<Vec<u8>>,
    /// How many firings of the trigger may wait.
    pub most_waiting: u32,
    /// Its audit event; what it says of the outcome is filled in.
    pub draft: Draft,
}

/// A trigger whose schedule has come.
#[derive(Clone, Debug, PartialEq)]
pub struct DueTrigger {
    /// Its org.
    pub org: OrgId,
    /// The trigger.
    pub record: TriggerRecord,
    /// The firing.
    pub next: NextFiring,
}

/// A firing that waited, and whose turn has come.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitingFiring {
    /// Its org.
    pub org: OrgId,
    /// Its trigger.
    pub record: TriggerRecord,
    /// Its key.
    pub key: String,
    /// What fired.
    pub cause: FiringCause,
    /// The moment that it was due at.
    pub due: Timestamp,
    /// What the caller sent.
    pub body: Option<Vec<u8>>,
}
