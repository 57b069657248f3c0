//! `POST /v1/sessions`

use axum::{
    extract::{Request, State},
    response::Response,
};
use engine::{CreateRequest, Uploads};
use http::HeaderMap;
use wire::{CreateSession, FieldError, Session};

use crate::{
    body::{self, read_json},
    failure::Failure,
    gate::Identity,
    query::Query,
    routes::{
        created,
        sessions::form::{self, CreateSessionForm, Form},
    },
    state::App,
};

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
const MAX_KEY_BYTES: usize = 255;

/// Create a session and start it
///
/// The session is recorded, and its sandbox is being made, when the answer comes. What the backend cannot enforce is
/// refused with `not_enforceable` before anything starts.
#[utoipa::path(
    post, path = "/v1/sessions", operation_id = "createSession", tag = "sessions",
    params((
        "Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
        description = "1 to 255 visible ASCII characters. For 24 hours the same key with the same body gives the \
            session that the first request made; with another body it is refused with `idempotency_conflict`.",
        example = "3f1c2d0e-build-17",
    )),
    request_body(
        description = "What to run, and under which policy. As a form it has large files beside it.",
        content((CreateSession = "application/json"), (CreateSessionForm = "multipart/form-data")),
    ),
    responses((
        status = 201, description = "The session, accepted.", body = Session,
        headers(("Location" = String, description = "Path of the session.")),
    )),
)]
pub(crate) async fn create_session(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    query: Query,
    request: Request,
) -> Result<Response, Failure> {
    let mut faults = query.faults();
    let (parts, body) = request.into_parts();
    let key = idempotency_key(&parts.headers, &mut faults);
    let (json, uploads) = match form::boundary(&parts.headers) {
        Some(boundary) => {
            let Form { request, uploads } = form::read(&app, &parts.headers, body, boundary).await?;
            (request, Some(uploads))
        }
        None => (read_json(&app, &parts.headers, body).await?, None),
    };
    let body::Json { bytes, held } = json;
    let (request, faults) = body::parsed(&bytes, faults, CreateSession::parse)?;
    let told = uploads.as_ref().map(Uploads::describe).unwrap_or_default();
    let idempotency = key.map(|key| (key, [bytes.as_slice(), told.as_bytes()].concat()));
    let asked = CreateRequest { request, shape_faults: faults, idempotency, uploads };
    let session = app.engine().create(&caller, asked).await?;
    drop(held);
    Ok(created(&format!("/v1/sessions/{}", session.id), session))
}

pub(crate) fn idempotency_key(headers: &HeaderMap, faults: &mut Vec<FieldError>) -> Option<String> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let value = values.next()?;
    let visible =
        |text: &&str| !text.is_empty() && text.len() <= MAX_KEY_BYTES && text.bytes().all(|b| b.is_ascii_graphic());
    match (value.to_str().ok().filter(visible), values.next()) {
        (Some(key), None) => Some(key.to_owned()),
        (Some(_), Some(_)) => {
            faults.push(FieldError::new(IDEMPOTENCY_KEY, "may be given only once"));
            None
        }
        (None, _) => {
            faults.push(FieldError::new(IDEMPOTENCY_KEY, "must be 1 to 255 visible ASCII characters"));
            None
        }
    }
}
