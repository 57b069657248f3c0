//! `DELETE /v1/fleets/{id}`

use axum::{Json, extract::State};
use wire::{Fleet, FleetId};

use crate::{
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    state::App,
};

/// Cancel a fleet
///
/// Members that run are cancelled, and those that wait never start. Waits a while until all have ended, and answers with
/// the fleet as it is then. Idempotent; a fleet that has ended stays as it is.
#[utoipa::path(
    delete, path = "/v1/fleets/{id}", operation_id = "deleteFleet", tag = "fleets",
    params(("id" = FleetId, Path, description = "The fleet's id.")),
    responses((status = 200, description = "The fleet as it is now.", body = Fleet)),
)]
pub(crate) async fn delete_fleet(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<FleetId>,
    query: Query,
) -> Result<Json<Fleet>, Failure> {
    query.finish()?;
    Ok(Json(app.engine().cancel_fleet(&caller, id).await.map_err(Failure::of_fleet)?))
}
