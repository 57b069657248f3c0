//! `POST /v1/triggers`

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use wire::{CreateTrigger, TriggerWithSecret};

use crate::{
    body::{self, read_json},
    failure::Failure,
    gate::Identity,
    query::Query,
    state::App,
};

/// Create a trigger
///
/// What it is to start is decided at once: a session that this deployment refuses is told with every fault, below
/// `session`. The secret of a webhook trigger is in this answer and in no other one: keep it.
#[utoipa::path(
    post, path = "/v1/triggers", operation_id = "createTrigger", tag = "triggers",
    request_body(content = CreateTrigger, description = "What fires it, and what it starts.", content_type = "application/json"),
    responses((
        status = 201, description = "The trigger; with its secret, if calls fire it.", body = TriggerWithSecret,
        headers(("Location" = String, description = "Path of the trigger.")),
    )),
)]
pub(crate) async fn create_trigger(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    query: Query,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let body::Json { bytes, held } = read_json(&app, &parts.headers, body).await?;
    let (request, faults) = body::parsed(&bytes, query.faults(), CreateTrigger::parse)?;
    let made = app.engine().create_trigger(&caller, request, faults).await?;
    drop(held);
    let path = format!("/v1/triggers/{}", made.trigger.id);
    let location = HeaderValue::from_str(&path).expect("ids are visible ASCII");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json::<TriggerWithSecret>(made)).into_response())
}
