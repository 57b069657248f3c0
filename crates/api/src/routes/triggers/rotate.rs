//! `POST /v1/triggers/{id}/secret`

use axum::{Json, extract::State};
use wire::{TriggerId, TriggerWithSecret};

use crate::{
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    state::App,
};

/// Make another secret for a trigger's calls
///
/// The one before it is of no use from then on. No other answer has the secret: keep it.
#[utoipa::path(
    post, path = "/v1/triggers/{id}/secret", operation_id = "rotateTriggerSecret", tag = "triggers",
    params(("id" = TriggerId, Path, description = "The trigger's id.")),
    responses((status = 200, description = "The trigger, with its new secret.", body = TriggerWithSecret)),
)]
pub(crate) async fn rotate_trigger_secret(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<TriggerId>,
    query: Query,
) -> Result<Json<TriggerWithSecret>, Failure> {
    query.finish()?;
    Ok(Json(app.engine().rotate_trigger_secret(&caller, id).await?))
}
