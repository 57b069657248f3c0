//! `GET /v1/webhooks/deliveries`

use axum::{Json, extract::State};
use engine::DeliveryFilter;
use wire::{DeliveryPage, DeliveryStatus, SessionId};

use crate::{
    failure::Failure,
    gate::Identity,
    query::{DEFAULT_LIMIT, MAX_LIMIT, Query},
    state::App,
};

/// List deliveries of webhook messages, newest first
///
/// What was delivered, what is still tried, what was given up, and why. Filters are combined with "and".
#[utoipa::path(
    get, path = "/v1/webhooks/deliveries", operation_id = "listDeliveries", tag = "webhooks",
    params(
        ("cursor" = Option<String>, Query, max_length = 512, description = "`nextCursor` of the page before."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Deliveries per page, 1 to 100; 20 if absent."),
        ("session" = Option<SessionId>, Query, description = "Only messages about this session."),
        ("status" = Option<DeliveryStatus>, Query, description = "Only deliveries that are in this status now."),
    ),
    responses((status = 200, description = "A page of deliveries.", body = DeliveryPage)),
)]
pub(crate) async fn list_deliveries(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    query: Query,
) -> Result<Json<DeliveryPage>, Failure> {
    let filter = filter(query)?;
    Ok(Json(app.engine().deliveries(&caller, filter).await?))
}

fn filter(mut query: Query) -> Result<DeliveryFilter, Failure> {
    let cursor = query.cursor();
    let limit = query.number("limit", 1..=MAX_LIMIT).unwrap_or(DEFAULT_LIMIT);
    let session = query.one("session").and_then(|text| {
        let session = text.parse().ok();
        if session.is_none() {
            query.fault("session", "must be the id of a session");
        }
        session
    });
    let status = query.one("status").and_then(|text| {
        let status = DeliveryStatus::ALL.into_iter().find(|status| status.as_str() == text);
        if status.is_none() {
            query.fault("status", "must be pending, delivered or failed");
        }
        status
    });
    query.finish()?;
    Ok(DeliveryFilter { cursor, limit, session, status })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_and_have_defaults() {
        let plain = filter(Query::parse("")).unwrap();
        assert_eq!((plain.cursor, plain.limit, plain.session, plain.status), (None, 20, None, None));
        let id = "ses_01890a5d-ac96-774b-bcce-b302099a8057";
        for status in DeliveryStatus::ALL {
            let text = format!("cursor=abc&limit=100&session={id}&status={}", status.as_str());
            let full = filter(Query::parse(&text)).unwrap();
            assert_eq!((full.limit, full.status), (100, Some(status)));
            assert_eq!(full.session.unwrap().to_string(), id);
        }
        for text in ["limit=0", "limit=101", "session=x", "session=", "status=Failed", "status=", "page=1"] {
            assert!(filter(Query::parse(text)).is_err(), "{text}");
        }
    }
}
