//! Why the engine refused: one enum per operation. `api` turns each variant into a problem document.

mod terminals;
mod triggers;

use std::time::Duration;

use backend::ObserveError;
use model::session::Refusal;
use store::{NotFired, StoreError};
use wire::{BindingId, FieldError};

pub use self::terminals::TerminalError;
pub use self::triggers::{FireError, HookError, TriggerError};
use crate::UnsealError;

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No backend was given.
    #[error("no backend")]
    NoBackend,
    /// The store failed.
    #[error("store")]
    Store(#[from] StoreError),
    /// A backend does not say what an earlier process left on it.
    #[error("backend {name} cannot be recovered")]
    Recovery {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        source: ObserveError,
    },
}

/// Why a shutdown did not reclaim everything.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    /// Sandboxes do not go away.
    #[error("{sandboxes} sandboxes are left; the next start removes them")]
    Left {
        /// How many.
        sandboxes: usize,
    },
    /// A backend does not say what is left on it.
    #[error("backend {name} does not say what is left")]
    Unknown {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        source: ObserveError,
    },
}

/// Why a caller is not known.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// No identity was presented, and this profile requires one.
    #[error("no API key was presented")]
    Missing,
    /// What was presented is not a key that works. Says nothing about why.
    #[error("the API key is not valid")]
    Invalid,
    /// The store failed.
    #[error("store")]
    Store(#[from] StoreError),
}

/// Why a session was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Fields are wrong.
    #[error("{} fields are wrong", .0.len())]
    Invalid(Vec<FieldError>),
    /// Parts of the contract that this version does not offer.
    #[error("{} fields are not offered", .0.len())]
    NotSupported(Vec<FieldError>),
    /// The backend cannot enforce what was asked for.
    #[error("backend {backend} cannot enforce this")]
    NotEnforceable {
        /// Which backend.
        backend: &'static str,
        /// What it cannot enforce.
        faults: Vec<FieldError>,
    },
    /// Too many sessions are waiting.
    #[error("too many sessions are waiting")]
    Busy {
        /// When to come again.
        retry_after: Duration,
    },
    /// The secret of a binding cannot be opened.
    #[error("the secret of {binding} cannot be opened")]
    Sealed {
        /// Of which.
        binding: BindingId,
        /// Why.
        #[source]
        source: UnsealError,
    },
    /// The firing that was to start it was not taken up.
    #[error(transparent)]
    NotFired(NotFired),
    /// The engine is shutting down.
    #[error("shutting down")]
    Draining,
    /// The idempotency key was used for another request.
    #[error("idempotency key was used for another request")]
    IdempotencyConflict,
    /// The store failed; nothing was recorded.
    #[error("store")]
    Store(#[from] StoreError),
}

impl From<Refusal> for CreateError {
    fn from(Refusal(faults): Refusal) -> Self {
        Self::Invalid(faults)
    }
}

impl From<store::CreateError> for CreateError {
    fn from(error: store::CreateError) -> Self {
        match error {
            store::CreateError::IdempotencyConflict => Self::IdempotencyConflict,
            store::CreateError::NotFired(refused) => Self::NotFired(refused),
            store::CreateError::Store(error) => Self::Store(error),
        }
    }
}

impl From<BoundError> for CreateError {
    fn from(error: BoundError) -> Self {
        match error {
            BoundError::Invalid(faults) => Self::Invalid(faults),
            BoundError::Sealed { binding, source } => Self::Sealed { binding, source },
            BoundError::Store(error) => Self::Store(error),
        }
    }
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It does not exist, or belongs to another org.
    #[error("not found")]
    NotFound,
    /// The store failed.
    #[error("store")]
    Store(#[from] StoreError),
}

/// Why a list could not be given.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The cursor is not one of this list.
    #[error("not a cursor of this list")]
    BadCursor,
    /// The store failed.
    #[error("store")]
    Store(#[source] StoreError),
}

impl From<StoreError> for ListError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::BadCursor => Self::BadCursor,
            other @ (StoreError::Database(_)
            | StoreError::Corrupt { .. }
            | StoreError::Tampered { .. }
            | StoreError::ForeignRecord
            | StoreError::Taken(_)
            | StoreError::Unsealable(_)
            | StoreError::Closed
            | StoreError::UnknownOrg) => Self::Store(other),
        }
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    /// The session does not exist, or belongs to another org.
    #[error("not found")]
    NotFound,
    /// It has not finished.
    #[error("not finished")]
    NotFinished,
    /// The store failed.
    #[error("store")]
    Store(#[from] StoreError),
}

/// Why a turn was not taken, or not told.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// Fields are wrong.
    #[error("{} fields are wrong", .0.len())]
    Invalid(Vec<FieldError>),
    /// The session takes no turns.
    #[error("{0}")]
    WrongState(&'static str),
    /// Too many turns are waiting already.
    #[error("{waiting} turns are waiting")]
    QueueFull {
        /// How many.
        waiting: usize,
    },
    /// The engine is shutting down.
    #[error("shutting down")]
    Draining,
    /// What became of the turn could not be recorded, so it is told to nobody.
    #[error("the end of the turn was not recorded")]
    Unavailable,
    /// The session, or the store.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a session was not cancelled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// The session does not exist, or belongs to another org.
    #[error("not found")]
    NotFound,
    /// The store failed.
    #[error("store")]
    Store(#[from] StoreError),
}

/// Why a key operation failed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no such key that still works.
    #[error("no such key")]
    NotFound,
    /// The store failed.
    #[error("store")]
    Store(#[from] StoreError),
}

/// Why a binding was not made, changed or deleted.
#[derive(Debug, thiserror::Error)]
pub enum BindingError {
    /// Fields are wrong.
    #[error("{} fields are wrong", .0.len())]
    Invalid(Vec<FieldError>),
    /// The org has a binding of that name.
    #[error("the name is taken")]
    NameTaken,
    /// It does not exist, or belongs to another org.
    #[error("not found")]
    NotFound,
    /// It is being changed by others all the time.
    #[error("changed by others at the same time")]
    Contended,
    /// The store failed; nothing was recorded.
    #[error("store")]
    Store(#[from] StoreError),
}

impl From<store::BindingError> for BindingError {
    fn from(error: store::BindingError) -> Self {
        match error {
            store::BindingError::NameTaken => Self::NameTaken,
            store::BindingError::NotFound => Self::NotFound,
            store::BindingError::Stale => Self::Contended,
            store::BindingError::Store(error) => Self::Store(error),
        }
    }
}

impl From<ReadError> for BindingError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound => Self::NotFound,
            ReadError::Store(error) => Self::Store(error),
        }
    }
}

/// Why the secret of an org's webhook messages was not replaced.
#[derive(Debug, thiserror::Error)]
pub enum WebhookSecretError {
    /// It is being replaced by others all the time.
    #[error("replaced by others at the same time")]
    Contended,
    /// The store failed; nothing was recorded.
    #[error("store")]
    Store(#[from] StoreError),
}

/// Why a session does not get its bindings.
#[derive(Debug, thiserror::Error)]
pub enum BoundError {
    /// Some of them are none, or are there twice.
    #[error("{} fields are wrong", .0.len())]
    Invalid(Vec<FieldError>),
    /// The secret of one cannot be opened: it has to be set again, or the server to get the key that it had.
    #[error("the secret of {binding} cannot be opened")]
    Sealed {
        /// Which.
        binding: BindingId,
        /// Why.
        #[source]
        source: UnsealError,
    },
    /// The store failed.
    #[error("store")]
    Store(#[from] StoreError),
}

/// Why an artifact was not given.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The session does not exist, or belongs to another org.
    #[error("not found")]
    NoSession,
    /// The session left nothing of that path, or it is no longer kept.
    #[error("no such artifact")]
    Absent,
    /// Its content could not be read.
    #[error("the content of an artifact")]
    Content(#[from] std::io::Error),
    /// The store failed.
    #[error("store")]
    Store(#[from] StoreError),
}

impl From<ReadError> for ArtifactError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound => Self::NoSession,
            ReadError::Store(error) => Self::Store(error),
        }
    }
}

/// Why a file of a session was not read, written, removed or listed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The session does not exist, or belongs to another org.
    #[error("not found")]
    NoSession,
    /// Its program does not run.
    #[error("the session does not run")]
    NotRunning,
    /// Fields are wrong.
    #[error("{} fields are wrong", .0.len())]
    Invalid(Vec<FieldError>),
    /// There is nothing of that name.
    #[error("no such file")]
    Absent,
    /// It is no regular file, or no directory where one is needed.
    #[error("not a regular file")]
    WrongKind,
    /// It does not fit on the session's disk.
    #[error("no room on the disk")]
    NoSpace,
    /// It claims to be larger than the session's disk.
    #[error("a file of {size} bytes")]
    TooLarge {
        /// What it claims.
        size: u64,
    },
    /// The workload may not do it either.
    #[error("permission denied")]
    Forbidden,
    /// A directory that is not empty, or has too many entries.
    #[error("too many entries")]
    TooMany,
    /// The workload changed it meanwhile.
    #[error("changed meanwhile")]
    Interfered,
    /// The content has another size than was announced.
    #[error("another size than was announced")]
    OtherSize,
    /// The content has another digest than was announced.
    #[error("another digest than was announced")]
    OtherDigest {
        /// SHA-256 of what came, hex.
        found: String,
    },
    /// The content did not come to its end.
    #[error("the content broke off")]
    BrokenOff,
    /// The content came too slowly.
    #[error("the content came too slowly")]
    Slow,
    /// Too many files are on their way.
    #[error("too many transfers")]
    Busy {
        /// When to come again.
        retry_after: Duration,
    },
    /// The sandbox did not answer in time.
    #[error("the sandbox did not answer")]
    Late,
    /// The sandbox could not do it.
    #[error("the sandbox could not do it")]
    Failed,
    /// The store failed.
    #[error("store")]
    Store(#[from] StoreError),
}

impl From<ReadError> for ResultError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound => Self::NotFound,
            ReadError::Store(error) => Self::Store(error),
        }
    }
}

impl From<ReadError> for CancelError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound => Self::NotFound,
            ReadError::Store(error) => Self::Store(error),
        }
    }
}
