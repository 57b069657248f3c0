//! `GET /v1/sessions/{id}/artifacts/{path}`

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use engine::Digest;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use wire::SessionId;

use crate::{
    content::{CONTENT_DIGEST, as_download, content_digest, outgoing},
    failure::Failure,
    gate::Identity,
    query::Query,
    range::{self, Wanted},
    routes::files::{At, get::unsatisfiable},
    state::App,
};

/// What a client may keep: the content never changes, but who may see it may.
const CACHE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// An artifact
///
/// The bytes of a file that the session left, as a download. The `ETag` is its SHA-256; `If-None-Match` and one range are
/// served.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/artifacts/{*path}", operation_id = "getArtifact", tag = "files",
    params(
        ("id" = SessionId, Path, description = "The session's id."),
        ("path" = String, Path, description = "The artifact's path, percent-encoded."),
        ("Range" = Option<String>, Header, description = "One range of bytes; several are ignored.", example = "bytes=0-1023"),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag` that the caller has the content of."),
    ),
    responses(
        (status = 200, description = "The artifact.", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The part that was asked for.", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "The caller has it."),
    ),
)]
pub(crate) async fn get_artifact(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    At { id, path }: At,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, Failure> {
    query.finish()?;
    let content = app.engine().artifact(&caller, id, &path).await?;
    let (size, sha256) = (content.artifact.size, &content.artifact.sha256);
    let etag = format!("\"{sha256}\"");
    let tag = HeaderValue::from_str(&etag).map_err(|_| Failure::internal())?;
    let mark = |response: &mut Response| {
        response.headers_mut().insert(header::ETAG, tag.clone());
        response.headers_mut().insert(header::CACHE_CONTROL, CACHE);
    };
    if matches(&headers, &etag) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        mark(&mut response);
        return Ok(response);
    }
    let part = match range::wanted(&headers, size, Some(&etag)) {
        Wanted::Unsatisfiable => return Err(unsatisfiable(size)),
        Wanted::Part(part) => Some(part),
        Wanted::Whole => None,
    };
    let wanted = part.clone().unwrap_or(0..size);
    let bytes = wanted.end - wanted.start;
    let body: Body = outgoing(content.bytes(wanted).await?, app.settings().stall_timeout);
    let status = if part.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut response = (status, body).into_response();
    as_download(&mut response, bytes);
    mark(&mut response);
    match part {
        Some(part) => {
            response.headers_mut().insert(header::CONTENT_RANGE, range::content_range(&part, size));
        }
        None => {
            if let Some(digest) = digest(sha256) {
                response.headers_mut().insert(CONTENT_DIGEST, content_digest(&digest));
            }
        }
    }
    Ok(response)
}

/// Whether `If-None-Match` names it.
fn matches(headers: &HeaderMap, etag: &str) -> bool {
    let named = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        text.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag)
    };
    headers.get_all(header::IF_NONE_MATCH).iter().any(named)
}

fn digest(sha256: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    hex::decode_to_slice(sha256, &mut digest).ok().map(|()| digest)
}
