//! `GET /v1/fleets/{id}`

use axum::{Json, extract::State};
use wire::{Fleet, FleetId};

use crate::{
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    state::App,
};

/// A fleet
///
/// Its phase folds its members: `pending` until one runs, then `running`. It ends once all of its members have: as
/// `succeeded` when its completion is met, as `killed` when a budget or a cancellation ended it, as `failed` otherwise.
#[utoipa::path(
    get, path = "/v1/fleets/{id}", operation_id = "getFleet", tag = "fleets",
    params(("id" = FleetId, Path, description = "The fleet's id.")),
    responses((status = 200, description = "The fleet as it is now.", body = Fleet)),
)]
pub(crate) async fn get_fleet(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<FleetId>,
    query: Query,
) -> Result<Json<Fleet>, Failure> {
    query.finish()?;
    Ok(Json(app.engine().fleet(&caller, id).await.map_err(Failure::of_fleet)?))
}
