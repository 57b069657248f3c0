//! `GET /v1/sessions/{id}/audit`

use axum::{Json, extract::State};
use wire::{AuditPage, SessionId};

use crate::{
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    state::App,
};

const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1000;
/// Positions in the log fit a signed 64-bit integer in every store.
const MAX_SEQ: u64 = i64::MAX.cast_unsigned();

/// A session's audit events
///
/// In the order of the org's log, each with its hash and the hash of the event before it in that log.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/audit", operation_id = "getSessionAudit", tag = "audit",
    params(
        ("id" = SessionId, Path, description = "The session's id."),
        ("cursor" = Option<String>, Query, max_length = 19, pattern = "^[0-9]+$",
            description = "`nextCursor` of the page before."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000,
            description = "Events per page, 1 to 1000; 100 if absent."),
    ),
    responses((status = 200, description = "A page of audit events.", body = AuditPage)),
)]
pub(crate) async fn get_session_audit(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<SessionId>,
    mut query: Query,
) -> Result<Json<AuditPage>, Failure> {
    let after = query.one("cursor").and_then(|cursor| {
        let seq = crate::query::number(&cursor, &(0..=MAX_SEQ)).ok();
        if seq.is_none() {
            query.fault("cursor", "is not a nextCursor of this list");
        }
        seq
    });
    let limit = query.number("limit", 1..=MAX_LIMIT).unwrap_or(DEFAULT_LIMIT);
    query.finish()?;
    Ok(Json(app.engine().audit(&caller, id, after.unwrap_or(0), limit).await?))
}
