//! `GET /v1/backends`

use axum::{Json, extract::State};
use wire::BackendPage;

use crate::{failure::Failure, gate::Identity, query::Query, state::App};

/// The backends of this deployment
///
/// What each enforces, and by what mechanism. The default one comes first.
#[utoipa::path(
    get, path = "/v1/backends", operation_id = "listBackends", tag = "backends",
    responses((status = 200, description = "The backends.", body = BackendPage)),
)]
pub(crate) async fn list_backends(
    State(app): State<App>,
    _caller: Identity,
    query: Query,
) -> Result<Json<BackendPage>, Failure> {
    query.finish()?;
    Ok(Json(app.engine().backends()))
}
