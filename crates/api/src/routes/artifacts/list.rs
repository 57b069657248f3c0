//! `GET /v1/sessions/{id}/artifacts`

use axum::{Json, extract::State};
use wire::{ArtifactPage, SessionId};

use crate::{
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    state::App,
};

/// A session's artifacts
///
/// The files that were collected when its workload ended and are still kept. None before that; the result also names those
/// that are no longer kept.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/artifacts", operation_id = "listArtifacts", tag = "files",
    params(("id" = SessionId, Path, description = "The session's id.")),
    responses((status = 200, description = "All of them, by path.", body = ArtifactPage)),
)]
pub(crate) async fn list_artifacts(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<SessionId>,
    query: Query,
) -> Result<Json<ArtifactPage>, Failure> {
    query.finish()?;
    Ok(Json(app.engine().artifacts(&caller, id).await?))
}
