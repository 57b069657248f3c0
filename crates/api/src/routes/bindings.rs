//! Operations on bindings.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod rotate;
pub(crate) mod update;

use axum::extract::{FromRequestParts, Path, Request};
use http::request::Parts;
use tokio::sync::OwnedSemaphorePermit;
use wire::{BindingId, FieldError};

use crate::{
    body::{self, read_json},
    failure::Failure,
    query::Query,
    state::App,
};

/// The binding's id in the path. Whatever is not an id is a binding that does not exist.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Id(pub(crate) BindingId);

impl FromRequestParts<App> for Id {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let text = Path::<String>::from_request_parts(parts, app).await.map_err(|_| Failure::no_binding())?;
        text.parse().map(Self).map_err(|_| Failure::no_binding())
    }
}

/// What was read of a body that holds a secret, and what could not be.
struct Asked<T> {
    what: T,
    faults: Vec<FieldError>,
    /// Gives the budget of bodies back when the request is decided.
    _held: Option<OwnedSemaphorePermit>,
}

/// Reads a body that holds a secret; its bytes are wiped.
async fn read<T>(app: &App, query: Query, request: Request, parse: body::Parse<T>) -> Result<Asked<T>, Failure> {
    let (parts, body) = request.into_parts();
    let body::Json { mut bytes, held } = read_json(app, &parts.headers, body).await?;
    let parsed = body::parsed(&bytes, query.faults(), parse);
    model::secret::wipe(&mut bytes);
    let (what, faults) = parsed?;
    Ok(Asked { what, faults, _held: held })
}
