//! `POST /v1/sessions/{id}/turns`

use axum::{
    Extension, Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header};
use wire::{CreateTurn, ErrorCode, SessionId, Turn, TurnFrame};

use crate::{
    body::{self, read_json},
    failure::Failure,
    gate::{Id, Standing},
    query::Query,
    serve::Closing,
    sse,
    sse::EVENTS,
    state::App,
};

/// Run a turn
///
/// Turns run in the order in which they were accepted, one at a time; 16 may wait behind the one that runs, and more are
/// refused with `turn_queue_full`. The answer comes when the turn has ended, however long that takes; with
/// `Accept: text/event-stream` it begins at once, and its events are the turn's own `stdout`, `stderr` and `gap`, a `turn`
/// event whenever its status changes, and last an `end` event with the whole turn. A turn is not tied to its request: when
/// the caller goes away it goes on, and can be read afterwards.
#[utoipa::path(
    post, path = "/v1/sessions/{id}/turns", operation_id = "createTurn", tag = "turns",
    params(("id" = SessionId, Path, description = "The session's id.")),
    request_body(content = CreateTurn, description = "What to run.", content_type = "application/json"),
    responses((
        status = 200,
        description = "The turn, ended: its `status` says how. As events, the schema is that of one event's `data`.",
        content((Turn = "application/json"), (TurnFrame = "text/event-stream")),
    )),
)]
pub(crate) async fn create_turn(
    State(app): State<App>,
    standing: Standing,
    Id(id): Id<SessionId>,
    closing: Option<Extension<Closing>>,
    query: Query,
    request: Request,
) -> Result<Response, Failure> {
    let faults = query.faults();
    let (parts, body) = request.into_parts();
    let body::Json { bytes, held } = read_json(&app, &parts.headers, body).await?;
    let (asked, faults) = body::parsed(&bytes, faults, CreateTurn::parse)?;
    drop(bytes);
    let closing = Closing::of(closing);
    let waiter = app.engine().take_turn(&standing.caller, id, asked, faults).await?;
    drop(held);
    if wants_events(&parts.headers) {
        let body = sse::body(waiter.frames(), standing, app.settings().heartbeat, closing);
        return Ok((EVENTS, body).into_response());
    }
    let turn = tokio::select! {
        turn = waiter.ended() => turn?,
        () = closing.cancelled() => {
            let detail = "the server is shutting down; what becomes of the turn is in the list of the session's turns";
            return Err(Failure::new(ErrorCode::Unavailable, detail));
        }
    };
    standing.check().await?;
    Ok(Json::<Turn>(turn).into_response())
}

/// Whether the caller asks for events: as one of the types that it takes, without a look at its preferences.
fn wants_events(headers: &HeaderMap) -> bool {
    let types = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = types.flat_map(|value| value.split(','));
    types.any(|one| one.split(';').next().is_some_and(|one| one.trim().eq_ignore_ascii_case("text/event-stream")))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn events_are_for_those_who_ask_for_them() {
        let wants = |accept: &'static str| {
            wants_events(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
        };
        for accept in ["text/event-stream", "application/json;q=0.5, Text/Event-Stream; q=1"] {
            assert!(wants(accept), "{accept}");
        }
        for accept in ["*/*", "application/json", "text/*", "text/event-streams", ""] {
            assert!(!wants(accept), "{accept}");
        }
        assert!(!wants_events(&HeaderMap::new()));
    }
}
