//! `GET /v1/fleets/{id}/results`

use axum::{Json, extract::State};
use wire::{FleetId, FleetResultPage, MemberPhase};

use super::{MAX_MEMBERS, member_filter};
use crate::{
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    state::App,
};

/// What a fleet's members gave back
///
/// In the order of the request, with the JSON that each gave to `enclave.result`. A page ends early where the results get
/// large (about 4 MiB). Members that have not ended have no result yet.
#[utoipa::path(
    get, path = "/v1/fleets/{id}/results", operation_id = "getFleetResults", tag = "fleets",
    params(
        ("id" = FleetId, Path, description = "The fleet's id."),
        ("cursor" = Option<String>, Query, max_length = 512, description = "`nextCursor` of the page before."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Members per page, 1 to 1000; 1000 if absent."),
        ("phase" = Option<MemberPhase>, Query, description = "Only members that are in this phase now."),
    ),
    responses((status = 200, description = "A page of results.", body = FleetResultPage)),
)]
pub(crate) async fn get_fleet_results(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<FleetId>,
    query: Query,
) -> Result<Json<FleetResultPage>, Failure> {
    let filter = member_filter(id, query, MAX_MEMBERS)?;
    Ok(Json(app.engine().fleet_results(&caller, filter).await?))
}
