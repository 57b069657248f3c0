//! `GET /healthz`

use axum::Json;
use wire::{Health, HealthStatus};

/// Whether the process lives
///
/// Says nothing about whether sessions can be created; `/readyz` does.
#[utoipa::path(
    get, path = "/healthz", operation_id = "getHealth", tag = "health",
    responses((status = 200, description = "The server answers.", body = Health)),
)]
pub(crate) async fn get_health() -> Json<Health> {
    Json(Health { status: HealthStatus::Ok, version: env!("CARGO_PKG_VERSION").to_owned() })
}
