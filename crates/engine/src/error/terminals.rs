//! Why something was not done with a terminal.

use store::StoreError;
use wire::FieldError;

/// Why something was not done with a terminal.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// The session does not exist, or belongs to another org.
    #[error("not found")]
    NoSession,
    /// Its program does not run.
    #[error("the session does not run")]
    NotRunning,
    /// The session has no such terminal, or it has ended so long ago that it is forgotten.
    #[error("no such terminal")]
    NoTerminal,
    /// Fields are wrong.
    #[error("{} fields are wrong", .0.len())]
    Invalid(Vec<FieldError>),
    /// The session has as many terminals as it may have.
    #[error("too many terminals")]
    TooMany,
    /// The terminal has as many clients as it may have.
    #[error("too many clients")]
    TooManyClients,
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
