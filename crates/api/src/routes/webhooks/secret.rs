//! `GET /v1/webhooks/secret`

use axum::{Json, extract::State};
use wire::WebhookSecretView;

use crate::{failure::Failure, gate::Identity, query::Query, state::App};

/// What is known of the signing secret
///
/// Never the secret itself: `POST` makes another one, and gives it out once.
#[utoipa::path(
    get, path = "/v1/webhooks/secret", operation_id = "getWebhookSecret", tag = "webhooks",
    responses((status = 200, description = "Its version, and until when the one before it is used.", body = WebhookSecretView)),
)]
pub(crate) async fn get_webhook_secret(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    query: Query,
) -> Result<Json<WebhookSecretView>, Failure> {
    query.finish()?;
    Ok(Json(app.engine().webhook_secret(&caller).await?))
}
