//! `GET /v1/bindings`

use axum::{Json, extract::State};
use engine::BindingFilter;
use wire::BindingPage;

use crate::{
    failure::Failure,
    gate::Identity,
    query::{DEFAULT_LIMIT, MAX_LIMIT, Query},
    state::App,
};

/// More than any name has; one that is longer names nothing.
const MAX_NAME_BYTES: usize = 256;

/// List bindings, by name
///
/// Never their secrets.
#[utoipa::path(
    get, path = "/v1/bindings", operation_id = "listBindings", tag = "bindings",
    params(
        ("cursor" = Option<String>, Query, max_length = 512, description = "`nextCursor` of the page before."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Bindings per page, 1 to 100; 20 if absent."),
        ("name" = Option<String>, Query, max_length = 256, description = "Only the binding of this name."),
    ),
    responses((status = 200, description = "A page of bindings.", body = BindingPage)),
)]
pub(crate) async fn list_bindings(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    query: Query,
) -> Result<Json<BindingPage>, Failure> {
    let filter = filter(query)?;
    Ok(Json(app.engine().bindings(&caller, filter).await?))
}

fn filter(mut query: Query) -> Result<BindingFilter, Failure> {
    let cursor = query.cursor();
    let limit = query.number("limit", 1..=MAX_LIMIT).unwrap_or(DEFAULT_LIMIT);
    let name = query.one("name");
    if name.as_ref().is_some_and(|name| name.is_empty() || name.len() > MAX_NAME_BYTES) {
        query.fault("name", "must be the name of a binding");
    }
    query.finish()?;
    Ok(BindingFilter { cursor, limit, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_and_have_defaults() {
        let plain = filter(Query::parse("")).unwrap();
        assert_eq!((plain.cursor, plain.limit, plain.name), (None, 20, None));
        let full = filter(Query::parse("cursor=abc&limit=100&name=github")).unwrap();
        assert_eq!((full.cursor.as_deref(), full.limit, full.name.as_deref()), (Some("abc"), 100, Some("github")));
        for text in ["limit=0", "limit=101", "cursor=", "name=", "name=a&name=b", "secret=x"] {
            assert!(filter(Query::parse(text)).is_err(), "{text}");
        }
    }
}
