//! `GET /openapi.json`

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;

use crate::openapi::openapi_text;

/// This document
///
/// OpenAPI 3.1, generated from the code that serves it.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "getOpenApi", tag = "documentation",
    responses((status = 200, description = "The OpenAPI document.", body = Object, content_type = "application/json")),
)]
pub(crate) async fn get_openapi() -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Bytes::from_static(openapi_text().as_bytes())).into_response()
}
