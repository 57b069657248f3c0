//! `GET /v1/sessions/{id}/terminals`

use axum::{Json, extract::State};
use wire::{SessionId, TerminalPage};

use crate::{
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    state::App,
};

/// List a session's terminals
///
/// Those that run, and the last 8 that have ended, in the order in which they were opened; as long as the session's
/// program runs.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/terminals", operation_id = "listTerminals", tag = "terminals",
    params(("id" = SessionId, Path, description = "The session's id.")),
    responses((status = 200, description = "The terminals.", body = TerminalPage)),
)]
pub(crate) async fn list_terminals(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<SessionId>,
    query: Query,
) -> Result<Json<TerminalPage>, Failure> {
    query.finish()?;
    Ok(Json(app.engine().terminals(&caller, id).await?))
}
