//! `GET /v1/sessions/{id}`

use axum::{Json, extract::State};
use wire::{Session, SessionId};

use crate::{
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    state::App,
};

/// A session
///
/// As it is now.
#[utoipa::path(
    get, path = "/v1/sessions/{id}", operation_id = "getSession", tag = "sessions",
    params(("id" = SessionId, Path, description = "The session's id.")),
    responses((status = 200, description = "The session.", body = Session)),
)]
pub(crate) async fn get_session(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<SessionId>,
    query: Query,
) -> Result<Json<Session>, Failure> {
    query.finish()?;
    Ok(Json(app.engine().session(&caller, id).await?))
}
