//! `POST /v1/triggers/{id}/fire`

use axum::{Json, extract::State};
use wire::{TriggerId, TriggerRun};

use crate::{
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    state::App,
};

/// Fire a trigger by hand
///
/// Enabled or not. Its policy on overlaps holds; the answer says what became of the firing.
#[utoipa::path(
    post, path = "/v1/triggers/{id}/fire", operation_id = "fireTrigger", tag = "triggers",
    params(("id" = TriggerId, Path, description = "The trigger's id.")),
    responses((status = 200, description = "What became of the firing.", body = TriggerRun)),
)]
pub(crate) async fn fire_trigger(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<TriggerId>,
    query: Query,
) -> Result<Json<TriggerRun>, Failure> {
    query.finish()?;
    Ok(Json(app.engine().fire_trigger(&caller, id).await?))
}
