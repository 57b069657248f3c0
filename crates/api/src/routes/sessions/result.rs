//! `GET /v1/sessions/{id}/result`

use std::time::Duration;

use axum::{Extension, Json, extract::State};
use tokio::time::Instant;
use wire::{SessionId, SessionResult};

use crate::{
    failure::Failure,
    gate::{Id, Standing},
    query::Query,
    serve::Closing,
    state::App,
};

pub(crate) const MAX_WAIT_MS: u64 = 60_000;
/// The longest that a caller may ask to wait.
pub(crate) const MAX_WAIT: Duration = Duration::from_millis(MAX_WAIT_MS);

/// The result of a session
///
/// Refused with `not_finished` until the session has ended. `waitMs` waits for that.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/result", operation_id = "getSessionResult", tag = "sessions",
    params(
        ("id" = SessionId, Path, description = "The session's id."),
        ("waitMs" = Option<u64>, Query, minimum = 0, maximum = 60_000,
            description = "Milliseconds to wait for the end, 0 to 60000; 0 if absent."),
    ),
    responses((status = 200, description = "The result.", body = SessionResult)),
)]
pub(crate) async fn get_session_result(
    State(app): State<App>,
    standing: Standing,
    Id(id): Id<SessionId>,
    closing: Option<Extension<Closing>>,
    mut query: Query,
) -> Result<Json<SessionResult>, Failure> {
    let wait = Duration::from_millis(query.number("waitMs", 0..=MAX_WAIT_MS).unwrap_or(0));
    query.finish()?;
    let closing = Closing::of(closing);
    let started = Instant::now();
    let result = tokio::select! {
        result = app.engine().result(&standing.caller, id, wait) => result,
        // A server that stops does not let its callers wait for what it may not live to see.
        () = closing.cancelled() => app.engine().result(&standing.caller, id, Duration::ZERO).await,
    }?;
    if started.elapsed() >= app.settings().heartbeat {
        standing.check().await?;
    }
    Ok(Json(result))
}
