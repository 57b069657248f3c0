//! `GET /v1/fleets/{id}/stream`

use axum::{Extension, extract::State, response::Response};
use http::HeaderMap;
use wire::{FleetFrame, FleetId};

use crate::{
    failure::Failure,
    gate::{Id, Standing},
    query::Query,
    routes::sessions::stream::resume_after,
    serve::Closing,
    sse,
    state::App,
};

/// A fleet's frames, as server-sent events
///
/// One stream for all members. Each event has a sequence number (`id`), a kind (`event`: `member`, `progress`, `end`) and
/// JSON (`data`). A `member` event says what a member is now; a reader who is slow or comes late gets each member once, as
/// it is, and members that still wait are in no event but in the counts of `progress`. `end` is the last one. With
/// `Last-Event-ID`, what has changed since comes, also over a start of the server. A comment comes every 15 seconds; a
/// stream whose key was revoked ends there at the latest.
#[utoipa::path(
    get, path = "/v1/fleets/{id}/stream", operation_id = "streamFleet", tag = "fleets",
    params(
        ("id" = FleetId, Path, description = "The fleet's id."),
        ("Last-Event-ID" = Option<u64>, Header, minimum = 0, maximum = 9_007_199_254_740_991_u64,
            description = "Sequence number of the last event that was read."),
        ("lastEventId" = Option<u64>, Query, minimum = 0, maximum = 9_007_199_254_740_991_u64,
            description = "The same, for clients that cannot set headers. The header wins."),
    ),
    responses(
        (status = 200, description = "The events; the schema is that of one event's `data`.", body = FleetFrame,
            content_type = "text/event-stream"),
        (status = 204, description = "Nothing follows the event that was named: the stream is at its end."),
    ),
)]
pub(crate) async fn stream_fleet(
    State(app): State<App>,
    standing: Standing,
    Id(id): Id<FleetId>,
    closing: Option<Extension<Closing>>,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, Failure> {
    let after = resume_after(&headers, query)?;
    let frames = app.engine().fleet_stream(&standing.caller, id, after).await.map_err(Failure::of_fleet)?;
    Ok(sse::response(frames, standing, app.settings().heartbeat, closing))
}
