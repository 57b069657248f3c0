//! `GET /v1/sessions/{id}/files`

use axum::{Json, extract::State};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use engine::FileFilter;
use wire::{FilePage, SessionId};

use crate::{
    failure::Failure,
    gate::{Id, Identity},
    query::Query,
    state::App,
};

const DEFAULT_LIMIT: u32 = 1000;
const MAX_LIMIT: u32 = 10_000;
/// Of the longest path that a sandbox can list, in base64.
const MAX_CURSOR_BYTES: usize = 12 * 1024;

/// List files
///
/// What is in the working directory now, or in a directory below it, as long as the program runs. Links are listed and
/// never followed. Pages go on behind the last name, whatever has changed in between.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/files", operation_id = "listFiles", tag = "files",
    params(
        ("id" = SessionId, Path, description = "The session's id."),
        ("path" = Option<String>, Query, max_length = 1024, description = "A directory below `/workspace`; `/workspace` if absent."),
        ("recursive" = Option<bool>, Query, description = "Whether what is in directories below is listed as well; false if absent."),
        ("cursor" = Option<String>, Query, max_length = 12_288, description = "`nextCursor` of the page before."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 10_000,
            description = "Entries per page, 1 to 10000; 1000 if absent."),
    ),
    responses((status = 200, description = "A page of entries.", body = FilePage)),
)]
pub(crate) async fn list_files(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    Id(id): Id<SessionId>,
    query: Query,
) -> Result<Json<FilePage>, Failure> {
    let filter = filter(query)?;
    let (mut page, next) = app.engine().files(&caller, id, filter).await?;
    page.next_cursor = next.map(|after| URL_SAFE_NO_PAD.encode(after));
    Ok(Json(page))
}

fn filter(mut query: Query) -> Result<FileFilter, Failure> {
    let path = query.one("path");
    let recursive = match query.one("recursive").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            query.fault("recursive", "must be true or false");
            false
        }
    };
    let after = query.one("cursor").and_then(|cursor| {
        let after = URL_SAFE_NO_PAD.decode(&cursor).ok();
        let after = after.filter(|after| !after.is_empty() && cursor.len() <= MAX_CURSOR_BYTES);
        if after.is_none() {
            query.fault("cursor", "is not a nextCursor of this list");
        }
        after
    });
    let within = |directory: &String, after: &Vec<u8>| {
        after.strip_prefix(directory.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"))
    };
    if let (Some(directory), Some(after)) = (&path, &after)
        && !within(directory, after)
    {
        query.fault("cursor", "is not a nextCursor of this list");
    }
    let limit = query.number("limit", 1..=MAX_LIMIT).unwrap_or(DEFAULT_LIMIT);
    query.finish()?;
    Ok(FileFilter { path, recursive, after, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_and_what_is_none_is_refused() {
        let plain = filter(Query::parse("")).unwrap();
        assert_eq!((plain.path, plain.recursive, plain.after, plain.limit), (None, false, None, 1000));
        let full = filter(Query::parse("path=a/b&recursive=true&cursor=YS9iL2M&limit=10000")).unwrap();
        assert_eq!((full.path.as_deref(), full.recursive, full.limit), (Some("a/b"), true, 10_000));
        assert_eq!(full.after.as_deref(), Some(b"a/b/c".as_slice()));
        for text in [
            "recursive=1",
            "cursor=",
            "cursor=%20",
            "limit=0",
            "limit=10001",
            "path=a&cursor=YS9iL2M&path=a",
            "path=b&cursor=YS9iL2M",
            "depth=1",
        ] {
            assert!(filter(Query::parse(text)).is_err(), "{text}");
        }
        assert!(filter(Query::parse(&format!("cursor={}", "A".repeat(12 * 1024 + 4)))).is_err());
    }
}
