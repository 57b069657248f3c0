//! `POST /v1/sessions/{id}/terminals`

use axum::{
    extract::{Request, State},
    response::Response,
};
use wire::{CreateTerminal, SessionId, Terminal};

use crate::{
    body::read,
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    routes::created,
    state::App,
};

/// Open a terminal
///
/// A program with a terminal of its own, beside the session's program, as long as that runs: the same user, files, limits
/// and way out. A session has at most 8. What is written is held until somebody attaches; with 128 KiB that nobody has
/// taken, the program waits.
#[utoipa::path(
    post, path = "/v1/sessions/{id}/terminals", operation_id = "createTerminal", tag = "terminals",
    params(("id" = SessionId, Path, description = "The session's id.")),
    request_body(content = CreateTerminal, description = "What runs in it, and its size.", content_type = "application/json"),
    responses((
        status = 201, description = "The terminal.", body = Terminal,
        headers(("Location" = String, description = "Path of the terminal.")),
    )),
)]
pub(crate) async fn create_terminal(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<SessionId>,
    query: Query,
    request: Request,
) -> Result<Response, Failure> {
    let asked = read(&app, query, request, CreateTerminal::parse).await?;
    let terminal = app.engine().open_terminal(&caller, id, asked.what, asked.faults).await?;
    Ok(created(&format!("/v1/sessions/{id}/terminals/{}", terminal.id), terminal))
}
