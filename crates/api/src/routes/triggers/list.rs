//! `GET /v1/triggers`

use axum::{Json, extract::State};
use engine::TriggerFilter;
use wire::TriggerPage;

use crate::{failure::Failure, gate::Identity, query::Query, state::App};

/// Triggers of a page: each may hold a whole program.
const MAX_LIMIT: u32 = 20;

/// List triggers, by name
///
/// Never their secrets.
#[utoipa::path(
    get, path = "/v1/triggers", operation_id = "listTriggers", tag = "triggers",
    params(
        ("cursor" = Option<String>, Query, max_length = 512, description = "`nextCursor` of the page before."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 20, description = "Triggers per page, 1 to 20; 20 if absent."),
    ),
    responses((status = 200, description = "A page of triggers.", body = TriggerPage)),
)]
pub(crate) async fn list_triggers(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    mut query: Query,
) -> Result<Json<TriggerPage>, Failure> {
    let cursor = query.cursor();
    let limit = query.number("limit", 1..=MAX_LIMIT).unwrap_or(MAX_LIMIT);
    query.finish()?;
    Ok(Json(app.engine().triggers(&caller, TriggerFilter { cursor, limit }).await?))
}
