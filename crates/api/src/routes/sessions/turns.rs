//! Operations on the turns of interactive sessions.

pub(crate) mod create;
pub(crate) mod get;
pub(crate) mod interrupt;
pub(crate) mod list;

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use wire::SessionId;

use crate::{failure::Failure, query, state::App};

/// The session's id and the turn's number in the path. Whatever is neither is a turn that does not exist.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TurnPath {
    pub(crate) session: SessionId,
    pub(crate) number: u32,
}

impl FromRequestParts<App> for TurnPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let read = Path::<(String, String)>::from_request_parts(parts, app).await;
        let Path((session, number)) = read.map_err(|_| Failure::no_turn())?;
        let session = session.parse().map_err(|_| Failure::no_turn())?;
        let number = query::number(&number, &(1..=u32::MAX)).map_err(|_| Failure::no_turn())?;
        Ok(Self { session, number })
    }
}
