//! `POST /v1/fleets`

use axum::{
    extract::{Request, State},
    response::Response,
};
use engine::CreateFleetRequest;
use sha2::{Digest, Sha256};
use wire::{CreateFleet, Fleet};

use crate::{
    body::{self, read_json_within},
    failure::Failure,
    gate::Identity,
    query::Query,
    routes::{created, sessions::create::idempotency_key},
    state::App,
};

/// Create a fleet and start it
///
/// Many sessions as one unit: a list of them, or one with many inputs, each of which reaches its member as
/// `/workspace/input.json` and `enclave.input`. All members are recorded or none. They start while there is room, at most
/// `maxConcurrency` at the same time; the others wait as `queued`, without a session. What one of them does changes nothing
/// for the others.
#[utoipa::path(
    post, path = "/v1/fleets", operation_id = "createFleet", tag = "fleets",
    params((
        "Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
        description = "1 to 255 visible ASCII characters. For 24 hours the same key with the same body gives the \
            fleet that the first request made; with another body it is refused with `idempotency_conflict`.",
        example = "3f1c2d0e-shards-17",
    )),
    request_body(content = CreateFleet, description = "What to run, how much at once, and when it has succeeded.",
        content_type = "application/json"),
    responses((
        status = 201, description = "The fleet, accepted.", body = Fleet,
        headers(("Location" = String, description = "Path of the fleet.")),
    )),
)]
pub(crate) async fn create_fleet(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    query: Query,
    request: Request,
) -> Result<Response, Failure> {
    let mut faults = query.faults();
    let (parts, body) = request.into_parts();
    let key = idempotency_key(&parts.headers, &mut faults);
    let body::Json { bytes, held } =
        read_json_within(&app, &parts.headers, body, app.settings().fleet_body_limit).await?;
    // On a thread of its own: other requests do not wait for a body of megabytes to be read.
    let read = tokio::task::spawn_blocking(move || {
        let digest = key.is_some().then(|| hex::encode(Sha256::digest(&bytes)));
        body::parsed(&bytes, faults, CreateFleet::parse).map(|parsed| (parsed, key.zip(digest)))
    });
    let ((request, shape_faults), idempotency) = read.await.map_err(|_| Failure::internal())??;
    let asked = CreateFleetRequest { request, shape_faults, idempotency };
    let fleet = app.engine().create_fleet(&caller, asked).await?;
    drop(held);
    Ok(created(&format!("/v1/fleets/{}", fleet.id), fleet))
}
