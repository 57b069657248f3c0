//! `GET /v1/sessions/{id}/files/{path}`

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use wire::{ErrorCode, SessionId};

use super::At;
use crate::{
    content::{CONTENT_DIGEST, as_download, content_digest, outgoing},
    failure::Failure,
    gate::Identity,
    query::Query,
    range::{self, Wanted},
    state::App,
};

/// Read a file
///
/// The bytes of a regular file in the working directory, as long as the program runs. Always as a download of
/// `application/octet-stream`. One range is served. A file of up to 512 KiB has its `Content-Digest`. A file that becomes
/// shorter while it is read breaks the answer off before its `Content-Length`.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/files/{*path}", operation_id = "readFile", tag = "files",
    params(
        ("id" = SessionId, Path, description = "The session's id."),
        ("path" = String, Path, description = "Path below `/workspace`: parts divided by `/`, none of them empty, `.` or `..`. \
            Percent-encoded."),
        ("Range" = Option<String>, Header, description = "One range of bytes; several are ignored.", example = "bytes=0-1023"),
    ),
    responses(
        (status = 200, description = "The file.", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The part that was asked for.", body = Vec<u8>, content_type = "application/octet-stream"),
    ),
)]
pub(crate) async fn read_file(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    At { id, path }: At,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, Failure> {
    query.finish()?;
    let mut download = app.engine().read_file(&caller, id, &path).await?;
    let size = download.size;
    let stall = app.settings().stall_timeout;
    let respond = |status: StatusCode, body: Body, bytes: u64| {
        let mut response = (status, body).into_response();
        as_download(&mut response, bytes);
        response
    };
    match range::wanted(&headers, size, None) {
        Wanted::Unsatisfiable => Err(unsatisfiable(size)),
        Wanted::Part(part) => {
            let range = range::content_range(&part, size);
            let bytes = part.end - part.start;
            let body = outgoing(download.bytes(part), stall);
            let mut response = respond(StatusCode::PARTIAL_CONTENT, body, bytes);
            response.headers_mut().insert(header::CONTENT_RANGE, range);
            Ok(response)
        }
        Wanted::Whole => {
            let digest = download.digest().await?;
            let mut response = respond(StatusCode::OK, outgoing(download.bytes(0..size), stall), size);
            if let Some(digest) = digest {
                response.headers_mut().insert(CONTENT_DIGEST, content_digest(&digest));
            }
            Ok(response)
        }
    }
}

/// There is no such part.
pub(crate) fn unsatisfiable(size: u64) -> Failure {
    Failure::new(ErrorCode::RangeNotSatisfiable, format!("there are {size} bytes, and the range begins behind them"))
        .with_header(header::CONTENT_RANGE, range::no_range(size))
}
