//! Why the store could not do something.

use std::sync::Arc;

use model::audit::Unsealable;
use sqlx::migrate::MigrateError;
use wire::SessionId;

/// Why a read or a simple write failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed or did not answer in time.
    #[error("database")]
    Database(#[source] Arc<sqlx::Error>),
    /// There is no such org to write to.
    #[error("no such org")]
    UnknownOrg,
    /// A row holds something that this version cannot read.
    #[error("row of {table} is not readable")]
    Corrupt {
        /// Where.
        table: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// An entry of the audit log is not the text that was hashed, or stands under another number or session than it says.
    #[error("entry {seq} of the audit log was changed")]
    Tampered {
        /// Where it stands.
        seq: u64,
    },
    /// A record names another org than the handle that it was given to.
    #[error("the record belongs to another org")]
    ForeignRecord,
    /// There is a record of this id already.
    #[error("the id {0} is taken")]
    Taken(String),
    /// An audit event that the chain cannot carry.
    #[error("the audit event cannot be recorded")]
    Unsealable(#[from] Unsealable),
    /// The cursor was not given out by this org's list.
    #[error("not a cursor of this list")]
    BadCursor,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether the same call may do better later. What else fails stays as it is until somebody looks at the records.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Database(_) | Self::Closed => true,
            Self::UnknownOrg
            | Self::Corrupt { .. }
            | Self::Tampered { .. }
            | Self::ForeignRecord
            | Self::Taken(_)
            | Self::Unsealable(_)
            | Self::BadCursor => false,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

/// Why a firing of a trigger was not taken up.
#[derive(Debug, thiserror::Error)]
pub enum NotFired {
    /// This org has no such trigger.
    #[error("no such trigger")]
    Gone,
    /// It was taken up already.
    #[error("the firing was taken up already")]
    Taken,
    /// A session of the trigger's has not ended.
    #[error("a session of the trigger's has not ended")]
    Overlaps,
    /// The write failed; nothing was recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a trigger was not changed.
#[derive(Debug, thiserror::Error)]
pub enum TriggerError {
    /// The org has a trigger of that name.
    #[error("the name is taken")]
    NameTaken,
    /// This org has no trigger of that id.
    #[error("no such trigger")]
    NotFound,
    /// It was changed in the meantime; the change has to be decided anew.
    #[error("the trigger was changed in the meantime")]
    Stale,
    /// The write failed; nothing was recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a session could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The firing that starts it was not taken up.
    #[error(transparent)]
    NotFired(NotFired),
    /// The idempotency key was used for another request.
    #[error("idempotency key was used for another request")]
    IdempotencyConflict,
    /// The write failed; nothing was recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a member of a fleet got no session.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// It does not wait for one: it has one, it was skipped, or there is no such member in this org.
    #[error("the member does not wait for a session")]
    NotQueued,
    /// The write failed; nothing was recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a session's state could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// This org has no session of that id that is not torn down.
    #[error("no live session {0}")]
    NotLive(SessionId),
    /// The write failed; nothing was recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a binding was not changed.
#[derive(Debug, thiserror::Error)]
pub enum BindingError {
    /// The org has a binding of that name.
    #[error("the name is taken")]
    NameTaken,
    /// This org has no binding of that id.
    #[error("no such binding")]
    NotFound,
    /// It was changed in the meantime; the change has to be decided anew.
    #[error("the binding was changed in the meantime")]
    Stale,
    /// The write failed; nothing was recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    /// Whether another process has the file just now.
    pub(crate) fn is_busy(&self) -> bool {
        let error = match self {
            Self::Open { source, .. } => source,
            Self::Migrate {
                source: MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _), ..
            } => error,
            Self::Directory { .. } | Self::Migrate { .. } => return false,
        };
        is_busy(error)
    }
}

/// Whether SQLite says that another process has the file.
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    // The primary code is the lowest byte of the extended ones.
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == SQLITE_BUSY)
}

/// What SQLite says of a file that another process has.
const SQLITE_BUSY: u32 = 5;

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its file or directory cannot be made.
    #[error("cannot make the database file")]
    Directory {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file cannot be opened or made.
    #[error("cannot open {path}")]
    Open {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The schema cannot be brought to this version.
    #[error("cannot migrate {path}")]
    Migrate {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
}
