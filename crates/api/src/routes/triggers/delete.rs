//! `DELETE /v1/triggers/{id}`

use axum::{Json, extract::State};
use wire::{Trigger, TriggerId};

use crate::{
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    state::App,
};

/// Delete a trigger
///
/// Gives the trigger as it was; afterwards it does not exist, and its name is free. Its sessions go on, what waits in its
/// queue is forgotten.
#[utoipa::path(
    delete, path = "/v1/triggers/{id}", operation_id = "deleteTrigger", tag = "triggers",
    params(("id" = TriggerId, Path, description = "The trigger's id.")),
    responses((status = 200, description = "The trigger as it was.", body = Trigger)),
)]
pub(crate) async fn delete_trigger(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<TriggerId>,
    query: Query,
) -> Result<Json<Trigger>, Failure> {
    query.finish()?;
    Ok(Json(app.engine().delete_trigger(&caller, id).await?))
}
