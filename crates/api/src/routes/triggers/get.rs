//! `GET /v1/triggers/{id}`

use axum::{Json, extract::State};
use engine::TriggerError;
use wire::{Trigger, TriggerId};

use crate::{
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    state::App,
};

/// A trigger
///
/// As it is now, without its secret.
#[utoipa::path(
    get, path = "/v1/triggers/{id}", operation_id = "getTrigger", tag = "triggers",
    params(("id" = TriggerId, Path, description = "The trigger's id.")),
    responses((status = 200, description = "The trigger.", body = Trigger)),
)]
pub(crate) async fn get_trigger(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<TriggerId>,
    query: Query,
) -> Result<Json<Trigger>, Failure> {
    query.finish()?;
    Ok(Json(app.engine().trigger(&caller, id).await.map_err(TriggerError::from)?))
}
