//! `PUT /v1/sessions/{id}/files/{path}`

use axum::{
    Json,
    body::HttpBody as _,
    extract::{Request, State},
};
use engine::Upload;
use http::{HeaderMap, header};
use wire::{ErrorCode, FieldError, SessionId, StoredFile};

use super::At;
use crate::{
    content::{announced_digest, incoming},
    failure::Failure,
    gate::Identity,
    query::Query,
    state::App,
};

/// What a file gets that asks for nothing.
const DEFAULT_MODE: u32 = 0o644;
const MAX_MODE: u32 = 0o777;

/// Write a file
///
/// The body is the file, of any size within `limits.diskBytes`; the limits on other bodies do not apply. It is there as a
/// whole or not at all: until all of it has come it has another name, and what breaks off leaves nothing. Directories on
/// the way are made; a file or link of that name is replaced, for which both have to fit.
#[utoipa::path(
    put, path = "/v1/sessions/{id}/files/{*path}", operation_id = "writeFile", tag = "files",
    params(
        ("id" = SessionId, Path, description = "The session's id."),
        ("path" = String, Path, description = "Path below `/workspace`: parts divided by `/`, none of them empty, `.` or `..`. \
            Percent-encoded."),
        ("mode" = Option<u32>, Query, minimum = 0, maximum = 511,
            description = "Unix permission bits as a number; 420 (`0o644`) if absent."),
        ("Content-Digest" = Option<String>, Header,
            description = "SHA-256 of the body (RFC 9530). A body of another digest is refused with `digest_mismatch`.",
            example = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"),
    ),
    request_body(content = Vec<u8>, description = "The file.", content_type = "application/octet-stream"),
    responses((status = 200, description = "What was written.", body = StoredFile)),
)]
pub(crate) async fn write_file(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    At { id, path }: At,
    mut query: Query,
    request: Request,
) -> Result<Json<StoredFile>, Failure> {
    let mode = query.number("mode", 0..=MAX_MODE).unwrap_or(DEFAULT_MODE);
    let mut faults = query.faults();
    let (parts, body) = request.into_parts();
    let digest = announced_digest(&parts.headers, &mut faults);
    refuse_encodings(&parts.headers, &mut faults)?;
    if !faults.is_empty() {
        return Err(Failure::invalid(faults));
    }
    let upload = Upload { path, mode, size: body.size_hint().exact(), digest };
    let body = incoming(body, app.settings().stall_timeout);
    Ok(Json(app.engine().write_file(&caller, id, upload, body).await?))
}

/// The body is the file itself, all of it.
fn refuse_encodings(headers: &HeaderMap, faults: &mut Vec<FieldError>) -> Result<(), Failure> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        let detail = "the body is taken as it is, without a content encoding";
        return Err(Failure::new(ErrorCode::UnsupportedMediaType, detail));
    }
    if headers.contains_key(header::CONTENT_RANGE) {
        faults.push(FieldError::new("Content-Range", "a file is written as a whole"));
    }
    Ok(())
}
