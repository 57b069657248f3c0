//! `DELETE /v1/sessions/{id}`

use axum::{Json, extract::State};
use wire::{Session, SessionId};

use crate::{
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    state::App,
};

/// Stop a session and reclaim its sandbox
///
/// Idempotent. Waits some seconds for the sandbox to be gone, and gives the session as it is then; its record, result
/// and audit events stay.
#[utoipa::path(
    delete, path = "/v1/sessions/{id}", operation_id = "deleteSession", tag = "sessions",
    params(("id" = SessionId, Path, description = "The session's id.")),
    responses((status = 200, description = "The session, ended.", body = Session)),
)]
pub(crate) async fn delete_session(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<SessionId>,
    query: Query,
) -> Result<Json<Session>, Failure> {
    query.finish()?;
    Ok(Json(app.engine().cancel(&caller, id).await?))
}
