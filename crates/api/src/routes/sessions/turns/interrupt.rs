//! `POST /v1/sessions/{id}/turns/{number}/interrupt`

use axum::{Json, extract::State};
use wire::{SessionId, Turn};

use super::TurnPath;
use crate::{failure::Failure, gate::Identity, query::Query, state::App};

/// Interrupt a turn
///
/// Its code gets a `KeyboardInterrupt` in Python and is terminated in Node, and the session goes on with its state. One
/// that waits will not run. The answer is the turn as it is at that moment: ask for it again, with `waitMs`, for its end.
/// A turn that has ended stays as it is.
#[utoipa::path(
    post, path = "/v1/sessions/{id}/turns/{number}/interrupt", operation_id = "interruptTurn", tag = "turns",
    params(
        ("id" = SessionId, Path, description = "The session's id."),
        ("number" = u32, Path, minimum = 1, description = "The turn's number."),
    ),
    responses((status = 200, description = "The turn, as it is now.", body = Turn)),
)]
pub(crate) async fn interrupt_turn(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    TurnPath { session, number }: TurnPath,
    query: Query,
) -> Result<Json<Turn>, Failure> {
    query.finish()?;
    Ok(Json(app.engine().interrupt_turn(&caller, session, number).await.map_err(Failure::of_turn)?))
}
