//! `DELETE /v1/sessions/{id}/terminals/{terminal}`

use axum::extract::State;
use http::StatusCode;
use wire::{SessionId, TerminalId};

use super::At;
use crate::{failure::Failure, gate::Identity, query::Query, state::App};

/// End a terminal
///
/// Everything that was started in it gets SIGHUP, and what is left after a second SIGKILL. Answers when nothing is left. A
/// terminal that has ended stays as it is.
#[utoipa::path(
    delete, path = "/v1/sessions/{id}/terminals/{terminal}", operation_id = "deleteTerminal", tag = "terminals",
    params(
        ("id" = SessionId, Path, description = "The session's id."),
        ("terminal" = TerminalId, Path, description = "The terminal's id."),
    ),
    responses((status = 204, description = "It has ended.")),
)]
pub(crate) async fn delete_terminal(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    At { session, terminal }: At,
    query: Query,
) -> Result<StatusCode, Failure> {
    query.finish()?;
    app.engine().close_terminal(&caller, session, terminal).await.map_err(Failure::of_terminal)?;
    Ok(StatusCode::NO_CONTENT)
}
