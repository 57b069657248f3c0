//! `GET /v1/triggers/{id}/runs`

use axum::{Json, extract::State};
use engine::TriggerError;
use wire::{TriggerId, TriggerRuns};

use crate::{
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    state::App,
};

/// The last firings of a trigger, newest first
///
/// What fired, what became of it, and the session that it started. The last 50 are kept.
#[utoipa::path(
    get, path = "/v1/triggers/{id}/runs", operation_id = "getTriggerRuns", tag = "triggers",
    params(("id" = TriggerId, Path, description = "The trigger's id.")),
    responses((status = 200, description = "The firings.", body = TriggerRuns)),
)]
pub(crate) async fn get_trigger_runs(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<TriggerId>,
    query: Query,
) -> Result<Json<TriggerRuns>, Failure> {
    query.finish()?;
    Ok(Json(app.engine().trigger_runs(&caller, id).await.map_err(TriggerError::from)?))
}
