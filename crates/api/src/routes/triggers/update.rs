//! `PATCH /v1/triggers/{id}`

use axum::{
    Json,
    extract::{Request, State},
};
use wire::{Trigger, TriggerId, UpdateTrigger};

use crate::{
    body::read,
    failure::Failure,
    gate::{Id, Identity},
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
    Id(id): Id<TriggerId>,
    query: Query,
    request: Request,
) -> Result<Json<Trigger>, Failure> {
    let asked = read(&app, query, request, UpdateTrigger::parse).await?;
    Ok(Json(app.engine().update_trigger(&caller, id, asked.what, asked.faults).await?))
}
