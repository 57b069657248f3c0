//! `GET /v1/sessions/{id}/turns/{number}`

use std::time::Duration;

use axum::{Extension, Json, extract::State};
use tokio::time::Instant;
use wire::{SessionId, Turn};

use super::TurnPath;
use crate::{
    failure::Failure, gate::Standing, query::Query, routes::sessions::result::MAX_WAIT_MS, serve::Closing, state::App,
};

/// A turn
///
/// As it is now, or once it has ended: `waitMs` waits for that.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/turns/{number}", operation_id = "getTurn", tag = "turns",
    params(
        ("id" = SessionId, Path, description = "The session's id."),
        ("number" = u32, Path, minimum = 1, description = "The turn's number."),
        ("waitMs" = Option<u64>, Query, minimum = 0, maximum = 60_000,
            description = "Milliseconds to wait for the end, 0 to 60000; 0 if absent."),
    ),
    responses((status = 200, description = "The turn.", body = Turn)),
)]
pub(crate) async fn get_turn(
    State(app): State<App>,
    standing: Standing,
    TurnPath { session, number }: TurnPath,
    closing: Option<Extension<Closing>>,
    mut query: Query,
) -> Result<Json<Turn>, Failure> {
    let wait = Duration::from_millis(query.number("waitMs", 0..=MAX_WAIT_MS).unwrap_or(0));
    query.finish()?;
    let closing = Closing::of(closing);
    let started = Instant::now();
    let turn = tokio::select! {
        turn = app.engine().turn(&standing.caller, session, number, wait) => turn,
        () = closing.cancelled() => app.engine().turn(&standing.caller, session, number, Duration::ZERO).await,
    };
    let turn = turn.map_err(Failure::of_turn)?;
    if started.elapsed() >= app.settings().heartbeat {
        standing.check().await?;
    }
    Ok(Json(turn))
}
