//! Answers that the gateway itself gives over HTTP.

use std::io;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use model::egress::Refused;
use serde_json::json;

/// What answers consist of.
pub(crate) type Body = BoxBody<Bytes, io::Error>;

/// A refusal that people and programs can read.
pub(crate) fn problem(status: StatusCode, code: &'static str, refused: &Refused) -> Response<Body> {
    let mut document = json!({
        "type": "about:blank", "title": status.canonical_reason().unwrap_or_default(), "status": status.as_u16(),
        "code": code, "detail": refused.detail, "reason": refused.reason.as_str(),
    });
    if let Some(rule) = &refused.allowed_by {
        document["allowedBy"] = rule.clone().into();
    }
    let body = Full::new(Bytes::from(document.to_string())).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}
