//! The operations, one file each.

pub(crate) mod artifacts;
pub(crate) mod backends;
pub(crate) mod bindings;
pub(crate) mod docs;
pub(crate) mod files;
pub(crate) mod fleets;
pub(crate) mod health;
pub(crate) mod hooks;
pub(crate) mod openapi;
pub(crate) mod readiness;
pub(crate) mod sessions;
pub(crate) mod terminals;
pub(crate) mod triggers;
pub(crate) mod webhooks;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

/// Something new, and where it is.
fn created(path: &str, made: impl Serialize) -> Response {
    let location = HeaderValue::from_str(path).expect("ids are visible ASCII");
    (StatusCode::CREATED, [(header::LOCATION, location)], Json(made)).into_response()
}
