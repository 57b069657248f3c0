//! Refusals of terminals.

use engine::TerminalError;
use wire::ErrorCode;

use super::Failure;

impl Failure {
    /// Of what concerns one terminal: that cannot be told from one of a session that does not exist.
    pub(crate) fn of_terminal(error: TerminalError) -> Self {
        if matches!(error, TerminalError::NoSession) { Self::no_terminal() } else { error.into() }
    }
}

impl From<TerminalError> for Failure {
    fn from(error: TerminalError) -> Self {
        match error {
            TerminalError::NoSession => Self::not_found(),
            TerminalError::NotRunning => Self::new(
                ErrorCode::WrongState,
                "the session's program does not run: terminals are there only while it does",
            ),
            TerminalError::NoTerminal => Self::no_terminal(),
            TerminalError::Invalid(faults) => Self::invalid(faults),
            TerminalError::TooMany => {
                Self::new(ErrorCode::TooManyTerminals, "the session has as many terminals as it may have")
            }
            TerminalError::TooManyClients => {
                Self::new(ErrorCode::TooManyTerminals, "the terminal has as many clients as it may have")
            }
            TerminalError::Late => Self::new(ErrorCode::Unavailable, "the sandbox did not answer in time"),
            TerminalError::Failed => Self::new(ErrorCode::Unavailable, "the sandbox has no terminal to give"),
            TerminalError::Store(cause) => Self::store(cause),
        }
    }
}
