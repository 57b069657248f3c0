//! `GET /v1/sessions/{id}/turns`

use axum::{Json, extract::State};
use engine::TurnFilter;
use wire::{SessionId, TurnPage};

use crate::{
    failure::Failure,
    gate::{Id, Identity},
    query::{DEFAULT_LIMIT, MAX_LIMIT, Query},
    state::App,
};

/// List a session's turns, in their order
///
/// A page has fewer turns than `limit` when they are large: it ends at 8 MiB.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/turns", operation_id = "listTurns", tag = "turns",
    params(
        ("id" = SessionId, Path, description = "The session's id."),
        ("cursor" = Option<String>, Query, max_length = 512, description = "`nextCursor` of the page before."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Turns per page, 1 to 100; 20 if absent."),
    ),
    responses((status = 200, description = "A page of turns.", body = TurnPage)),
)]
pub(crate) async fn list_turns(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(session): Id<SessionId>,
    mut query: Query,
) -> Result<Json<TurnPage>, Failure> {
    let cursor = query.cursor();
    let limit = query.number("limit", 1..=MAX_LIMIT).unwrap_or(DEFAULT_LIMIT);
    query.finish()?;
    Ok(Json(app.engine().turns(&caller, TurnFilter { session, cursor, limit }).await?))
}
