//! `GET /v1/sessions/{id}/stream`

use std::future::ready;

use axum::{Extension, extract::State, response::Response};
use engine::MAX_SEQ;
use futures::StreamExt;
use http::HeaderMap;
use wire::{FieldError, FrameKind, Scope, SessionId, StreamFrame};

use crate::{
    failure::Failure,
    gate::{Id, Standing},
    query::{self, Query},
    serve::Closing,
    sse,
    state::App,
};

const LAST_EVENT_ID: &str = "Last-Event-ID";

/// A session's frames, as server-sent events
///
/// From the first frame, or behind the one that `Last-Event-ID` names. Each event has a sequence number (`id`), a kind
/// (`event`: `phase`, `stdout`, `stderr`, `audit`, `turn`, `result`, `gap`, `end`) and JSON (`data`). `end` is the last one.
/// Where output had to be dropped, a `gap` event says how much. `audit` events are left out for callers without the scope
/// `audit:read`. A comment comes every 15 seconds; a stream whose key was revoked ends there at the latest.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/stream", operation_id = "streamSession", tag = "sessions",
    params(
        ("id" = SessionId, Path, description = "The session's id."),
        ("Last-Event-ID" = Option<u64>, Header, minimum = 0, maximum = 9_007_199_254_740_991_u64,
            description = "Sequence number of the last event that was read."),
        ("lastEventId" = Option<u64>, Query, minimum = 0, maximum = 9_007_199_254_740_991_u64,
            description = "The same, for clients that cannot set headers. The header wins."),
    ),
    responses(
        (status = 200, description = "The events; the schema is that of one event's `data`.", body = StreamFrame,
            content_type = "text/event-stream"),
        (status = 204, description = "Nothing follows the event that was named: the stream is at its end."),
    ),
)]
pub(crate) async fn stream_session(
    State(app): State<App>,
    standing: Standing,
    Id(id): Id<SessionId>,
    closing: Option<Extension<Closing>>,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, Failure> {
    let after = resume_after(&headers, query)?;
    let audit = standing.caller.allows(Scope::AuditRead);
    let frames = app.engine().stream(&standing.caller, id, after).await?;
    let frames = frames.filter(move |frame| ready(audit || frame.kind != FrameKind::Audit));
    Ok(sse::response(Box::pin(frames), standing, app.settings().heartbeat, closing))
}

/// Behind which frame a reader goes on: by the header, else the query; 0 is from the first.
pub(crate) fn resume_after(headers: &HeaderMap, mut query: Query) -> Result<u64, Failure> {
    let from_query = query.number("lastEventId", 0..=MAX_SEQ);
    let mut faults = query.faults();
    let after = last_event_id(headers, &mut faults).or(from_query).unwrap_or(0);
    if faults.is_empty() { Ok(after) } else { Err(Failure::invalid(faults)) }
}

fn last_event_id(headers: &HeaderMap, faults: &mut Vec<FieldError>) -> Option<u64> {
    let mut values = headers.get_all(LAST_EVENT_ID).iter();
    let value = values.next()?;
    let read =
        value.to_str().map_err(|_| "must be ASCII".to_owned()).and_then(|text| query::number(text, &(0..=MAX_SEQ)));
    match (read, values.next()) {
        (Ok(seq), None) => Some(seq),
        (Ok(_), Some(_)) => {
            faults.push(FieldError::new(LAST_EVENT_ID, "may be given only once"));
            None
        }
        (Err(message), _) => {
            faults.push(FieldError::new(LAST_EVENT_ID, message));
            None
        }
    }
}
