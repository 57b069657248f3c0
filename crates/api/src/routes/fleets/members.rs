//! `GET /v1/fleets/{id}/members`

use axum::{Json, extract::State};
use wire::{FleetId, FleetMemberPage, MemberPhase};

use super::member_filter;
use crate::{
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    state::App,
};

const DEFAULT_LIMIT: u32 = 100;

/// A fleet's members
///
/// In the order of the request.
#[utoipa::path(
    get, path = "/v1/fleets/{id}/members", operation_id = "listFleetMembers", tag = "fleets",
    params(
        ("id" = FleetId, Path, description = "The fleet's id."),
        ("cursor" = Option<String>, Query, max_length = 512, description = "`nextCursor` of the page before."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Members per page, 1 to 1000; 100 if absent."),
        ("phase" = Option<MemberPhase>, Query, description = "Only members that are in this phase now."),
    ),
    responses((status = 200, description = "A page of members.", body = FleetMemberPage)),
)]
pub(crate) async fn list_fleet_members(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<FleetId>,
    query: Query,
) -> Result<Json<FleetMemberPage>, Failure> {
    let filter = member_filter(id, query, DEFAULT_LIMIT)?;
    Ok(Json(app.engine().fleet_members(&caller, filter).await?))
}
