//! `GET /readyz`

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use tokio::time::Instant;
use wire::{HealthStatus, Readiness};

use crate::state::App;

/// How long an answer serves everybody who asks: finding it out asks every backend, and anybody may ask.
const FRESH: Duration = Duration::from_secs(1);

/// Whether sessions can be created now
///
/// Names each backend, what isolates its sandboxes, and whether it answers. The answer may be one second old.
#[utoipa::path(
    get, path = "/readyz", operation_id = "getReadiness", tag = "health",
    responses(
        (status = 200, description = "Sessions can be created.", body = Readiness),
        (status = 503, description = "Sessions cannot be created now; `reason` says why.", body = Readiness),
    ),
)]
pub(crate) async fn get_readiness(State(app): State<App>) -> Response {
    let mut last = app.readiness().lock().await;
    let readiness = match &*last {
        Some((found, readiness)) if found.elapsed() < FRESH && !app.engine().is_draining() => readiness.clone(),
        Some(_) | None => {
            let readiness = app.engine().readiness().await;
            *last = Some((Instant::now(), readiness.clone()));
            readiness
        }
    };
    drop(last);
    let status = match readiness.status {
        HealthStatus::Ok => StatusCode::OK,
        HealthStatus::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json::<Readiness>(readiness)).into_response()
}
