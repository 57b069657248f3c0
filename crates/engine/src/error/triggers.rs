//! Why something about triggers was refused.

use store::StoreError;
use wire::FieldError;

use super::{CreateError, ReadError};

/// Why a trigger was not made, changed or deleted.
#[derive(Debug, thiserror::Error)]
pub enum TriggerError {
    /// Fields are wrong.
    #[error("{} fields are wrong", .0.len())]
    Invalid(Vec<FieldError>),
    /// This deployment would not take what it is to start.
    #[error("its session would be refused")]
    Session(#[source] CreateError),
    /// The org has a trigger of that name.
    #[error("the name is taken")]
    NameTaken,
    /// It does not exist, or belongs to another org.
    #[error("not found")]
    NotFound,
    /// It is fired by its schedule, not by calls.
    #[error("it has no secret")]
    NoSecret,
    /// It is being changed by others all the time.
    #[error("changed by others at the same time")]
    Contended,
    /// The store failed; nothing was recorded.
    #[error("store")]
    Store(#[from] StoreError),
}

impl From<store::TriggerError> for TriggerError {
    fn from(error: store::TriggerError) -> Self {
        match error {
            store::TriggerError::NameTaken => Self::NameTaken,
            store::TriggerError::NotFound => Self::NotFound,
            store::TriggerError::Stale => Self::Contended,
            store::TriggerError::Store(error) => Self::Store(error),
        }
    }
}

impl From<ReadError> for TriggerError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound => Self::NotFound,
            ReadError::Store(error) => Self::Store(error),
        }
    }
}

/// Why a firing was not taken up, and not recorded.
#[derive(Debug, thiserror::Error)]
pub enum FireError {
    /// There is no such trigger, or it belongs to another org.
    #[error("no such trigger")]
    Gone,
    /// It was taken up already.
    #[error("the firing was taken up already")]
    Taken,
    /// It waited, and another firing was faster; its turn comes.
    #[error("another firing was faster")]
    Overtaken,
    /// No session can be started just now.
    #[error("no session can be started now")]
    Later(#[source] CreateError),
    /// The store failed.
    #[error("store")]
    Store(#[from] StoreError),
}

/// Why a signed call fired nothing.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It is not signed, or for no trigger that takes calls. Says nothing about which.
    #[error("the call is not signed for a trigger")]
    NotSigned,
    /// The trigger is paused.
    #[error("the trigger is paused")]
    Disabled,
    /// It was not taken up.
    #[error(transparent)]
    Fire(#[from] FireError),
    /// The store failed.
    #[error("store")]
    Store(#[from] StoreError),
}
