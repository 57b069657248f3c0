//! Operations on triggers.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod fire;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod rotate;
pub(crate) mod runs;
pub(crate) mod update;

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use wire::TriggerId;

use crate::{failure::Failure, state::App};

/// The trigger's id in the path. Whatever is not an id is a trigger that does not exist.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Id(pub(crate) TriggerId);

impl FromRequestParts<App> for Id {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let text = Path::<String>::from_request_parts(parts, app).await.map_err(|_| Failure::no_trigger())?;
        text.parse().map(Self).map_err(|_| Failure::no_trigger())
    }
}
