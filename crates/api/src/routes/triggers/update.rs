//! `PATCH /v1/triggers/{id}`

use axum::{
    Json,
    extract::{Request, State},
};
use wire::{Trigger, TriggerId, UpdateTrigger};

use super::Id;
use crate::{
    body::{self, read_json},
    failure::Failure,
    gate::Identity,
    query::Query,
    state::App,
};

/// Change a trigger
///
/// What is absent stays as it is. `enabled: false` pauses it. What waits or runs goes on as it is.
#[utoipa::path(
    patch, path = "/v1/triggers/{id}", operation_id = "updateTrigger", tag = "triggers",
    params(("id" = TriggerId, Path, description = "The trigger's id.")),
    request_body(content = UpdateTrigger, description = "What changes.", content_type = "application/json"),
    responses((status = 200, description = "The trigger as it is now.", body = Trigger)),
)]
pub(crate) async fn update_trigger(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id,
    query: Query,
    request: Request,
) -> Result<Json<Trigger>, Failure> {
    let (parts, body) = request.into_parts();
    let body::Json { bytes, held } = read_json(&app, &parts.headers, body).await?;
    let (change, faults) = body::parsed(&bytes, query.faults(), UpdateTrigger::parse)?;
    let trigger = app.engine().update_trigger(&caller, id, change, faults).await?;
    drop(held);
    Ok(Json(trigger))
}
