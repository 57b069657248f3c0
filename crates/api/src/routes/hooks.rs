//! `POST /v1/hooks/{id}`: the one operation that knows its caller by a signature.

use axum::{
    Json,
    extract::{FromRequestParts, Path, Request, State},
};
use engine::HookHeaders;
use http::{HeaderMap, request::Parts};
use model::{trigger::MAX_BODY, webhook::signature};
use wire::{TriggerId, TriggerRun};

use crate::{body::read_bytes, failure::Failure, state::App};

/// The trigger's id in the path, if it is one. What is none is answered as a wrong signature is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Id(Option<TriggerId>);

impl FromRequestParts<App> for Id {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let text = Path::<String>::from_request_parts(parts, app).await;
        Ok(Self(text.ok().and_then(|text| text.parse().ok())))
    }
}

/// Fire a trigger by a signed call
///
/// The call is signed as Standard Webhooks has it, with the secret that the trigger's creation gave out: `webhook-id`,
/// `webhook-timestamp` within five minutes of now, `webhook-signature`. Its body, whatever it is, is the workload's
/// `/workspace/trigger.json`. Whatever is wrong with the signature, and whether there is such a trigger, has the same
/// answer. What stands behind `?` is the sender's own.
#[utoipa::path(
    post, path = "/v1/hooks/{id}", operation_id = "callHook", tag = "triggers",
    params(
        ("id" = TriggerId, Path, description = "The trigger's id."),
        ("webhook-id" = String, Header, max_length = 256, description = "The message's id: none is taken twice."),
        ("webhook-timestamp" = String, Header, description = "When it was sent, in seconds since 1970."),
        ("webhook-signature" = String, Header, description = "`v1,` and the signature in base64; several with spaces between."),
    ),
    request_body(content = String, description = "Anything, at most 1 MiB.", content_type = "application/json"),
    responses((status = 200, description = "What became of the firing.", body = TriggerRun)),
)]
pub(crate) async fn call_hook(
    State(app): State<App>,
    Id(id): Id,
    request: Request,
) -> Result<Json<TriggerRun>, Failure> {
    let (parts, body) = request.into_parts();
    let read = read_bytes(&app, app.calls(), &parts.headers, body, MAX_BODY).await?;
    let headers = HookHeaders {
        id: header(&parts.headers, signature::ID),
        timestamp: header(&parts.headers, signature::TIMESTAMP),
        signature: header(&parts.headers, signature::SIGNATURE),
    };
    let run = app.engine().hook(id, headers, read.bytes).await?;
    drop(read.held);
    Ok(Json(run))
}

/// The only value of a header; nothing when there are several, or none that is text.
fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    let mut values = headers.get_all(name).iter();
    match (values.next().and_then(|value| value.to_str().ok()), values.next()) {
        (Some(text), None) => text,
        (_, Some(_)) | (None, None) => "",
    }
}
