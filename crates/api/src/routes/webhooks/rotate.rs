//! `POST /v1/webhooks/secret`

use axum::{Json, extract::State};
use wire::RotatedWebhookSecret;

use crate::{failure::Failure, gate::Identity, query::Query, state::App};

/// Make another signing secret
///
/// Messages are signed with it from now on, and for 24 hours with the one before it as well. No other answer has the
/// secret: keep it.
#[utoipa::path(
    post, path = "/v1/webhooks/secret", operation_id = "rotateWebhookSecret", tag = "webhooks",
    responses((status = 200, description = "The new secret, this once.", body = RotatedWebhookSecret)),
)]
pub(crate) async fn rotate_webhook_secret(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    query: Query,
) -> Result<Json<RotatedWebhookSecret>, Failure> {
    query.finish()?;
    Ok(Json(app.engine().rotate_webhook_secret(&caller).await?))
}
