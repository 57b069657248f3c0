//! `DELETE /v1/sessions/{id}/files/{path}`

use axum::extract::State;
use http::StatusCode;
use wire::SessionId;

use super::At;
use crate::{failure::Failure, gate::Identity, query::Query, state::App};

/// Remove a file
///
/// A file, a link (not what it leads to), or an empty directory, as long as the program runs.
#[utoipa::path(
    delete, path = "/v1/sessions/{id}/files/{*path}", operation_id = "deleteFile", tag = "files",
    params(
        ("id" = SessionId, Path, description = "The session's id."),
        ("path" = String, Path, description = "Path below `/workspace`: parts divided by `/`, none of them empty, `.` or `..`. \
            Percent-encoded."),
    ),
    responses((status = 204, description = "It is gone.")),
)]
pub(crate) async fn delete_file(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    At { id, path }: At,
    query: Query,
) -> Result<StatusCode, Failure> {
    query.finish()?;
    app.engine().remove_file(&caller, id, &path).await?;
    Ok(StatusCode::NO_CONTENT)
}
