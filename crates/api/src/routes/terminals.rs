//! Operations on terminals of a session that runs.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use wire::{SessionId, TerminalId};

use crate::{failure::Failure, state::App};

/// The session's id and the terminal's in the path. Whatever is neither is a terminal that does not exist.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) session: SessionId,
    pub(crate) terminal: TerminalId,
}

impl FromRequestParts<App> for At {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let read = Path::<(String, String)>::from_request_parts(parts, app).await;
        let Path((session, terminal)) = read.map_err(|_| Failure::no_terminal())?;
        let session = session.parse().map_err(|_| Failure::no_terminal())?;
        let terminal = terminal.parse().map_err(|_| Failure::no_terminal())?;
        Ok(Self { session, terminal })
    }
}
