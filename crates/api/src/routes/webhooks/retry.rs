//! `POST /v1/webhooks/deliveries/{id}/retry`

use axum::{Json, extract::State};
use engine::ReadError;
use wire::{DeliveryId, WebhookDelivery};

use crate::{
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    state::App,
};

/// Deliver a message again
///
/// Now, and then for another 24 hours until it is taken, whatever became of it before. The message keeps its id, so that a
/// receiver that has it already knows it again. The answer is the delivery as it is before the attempt.
#[utoipa::path(
    post, path = "/v1/webhooks/deliveries/{id}/retry", operation_id = "retryDelivery", tag = "webhooks",
    params(("id" = DeliveryId, Path, description = "The delivery's id.")),
    responses((status = 200, description = "The delivery, pending.", body = WebhookDelivery)),
)]
pub(crate) async fn retry_delivery(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<DeliveryId>,
    query: Query,
) -> Result<Json<WebhookDelivery>, Failure> {
    query.finish()?;
    let retried = app.engine().retry_delivery(&caller, id).await;
    retried.map(Json).map_err(|error| match error {
        ReadError::NotFound => Failure::no_delivery(),
        ReadError::Store(_) => error.into(),
    })
}
