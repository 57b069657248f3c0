//! `POST /v1/triggers`

use axum::{
    extract::{Request, State},
    response::Response,
};
use wire::{CreateTrigger, TriggerWithSecret};

use crate::{body::read, failure::Failure, gate::Identity, query::Query, routes::created, state::App};

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
    let asked = read(&app, query, request, CreateTrigger::parse).await?;
    let made = app.engine().create_trigger(&caller, asked.what, asked.faults).await?;
    Ok(created(&format!("/v1/triggers/{}", made.trigger.id), made))
}
