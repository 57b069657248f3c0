//! `GET /v1/fleets`

use axum::{Json, extract::State};
use engine::FleetFilter;
use wire::FleetPage;

use crate::{
    failure::Failure,
    gate::Identity,
    query::{DEFAULT_LIMIT, MAX_LIMIT, Query},
    state::App,
};

/// List fleets, newest first
///
/// Each as it is now.
#[utoipa::path(
    get, path = "/v1/fleets", operation_id = "listFleets", tag = "fleets",
    params(
        ("cursor" = Option<String>, Query, max_length = 512, description = "`nextCursor` of the page before."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Fleets per page, 1 to 100; 20 if absent."),
    ),
    responses((status = 200, description = "A page of fleets.", body = FleetPage)),
)]
pub(crate) async fn list_fleets(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    mut query: Query,
) -> Result<Json<FleetPage>, Failure> {
    let cursor = query.cursor();
    let limit = query.number("limit", 1..=MAX_LIMIT).unwrap_or(DEFAULT_LIMIT);
    query.finish()?;
    Ok(Json(app.engine().fleets(&caller, FleetFilter { cursor, limit }).await?))
}
