//! Reading turns.

use futures::TryStreamExt as _;
use sqlx::{Row as _, SqlitePool};
use wire::{OrgId, SessionId, Turn, TurnPage};

use super::cursor;
use crate::{StoreError, TURN_PAGE_BYTES, TurnFilter, sqlite::row};

const LIST: &str = "turns/1";

pub(crate) async fn one(
    pool: &SqlitePool,
    org: OrgId,
    session: SessionId,
    number: u32,
) -> Result<Option<Turn>, StoreError> {
    let found = sqlx::query("SELECT body FROM turns WHERE org_id = ? AND session_id = ? AND number = ?")
        .bind(org.to_string())
        .bind(session.to_string())
        .bind(number)
        .fetch_optional(pool)
        .await?;
    found.map(|found| row::json(&found, 0, "turns")).transpose()
}

/// A page ends at its number of turns, or where they have become too much to be held at once.
pub(crate) async fn page(pool: &SqlitePool, org: OrgId, filter: &TurnFilter) -> Result<TurnPage, StoreError> {
    let list = format!("{LIST} {}", filter.session);
    let after = match &filter.cursor {
        None => 0,
        Some(text) => cursor::read(&list, org, text)?.parse::<u32>().map_err(|_| StoreError::BadCursor)?,
    };
    let mut rows = sqlx::query(
        "SELECT body FROM turns WHERE org_id = ? AND session_id = ? AND number > ? ORDER BY number LIMIT ?",
    )
    .bind(org.to_string())
    .bind(filter.session.to_string())
    .bind(after)
    .bind(i64::from(filter.limit) + 1)
    .fetch(pool);
    let wanted = usize::try_from(filter.limit).unwrap_or(usize::MAX);
    let (mut items, mut bytes, mut more) = (Vec::<Turn>::new(), 0, false);
    while let Some(found) = rows.try_next().await? {
        let size = found.try_get::<&str, _>(0)?.len();
        more = items.len() == wanted || (bytes + size > TURN_PAGE_BYTES && !items.is_empty());
        if more {
            break;
        }
        bytes += size;
        items.push(row::json(&found, 0, "turns")?);
    }
    let next_cursor = items.last().filter(|_| more).map(|last| cursor::write(&list, org, &last.number.to_string()));
    Ok(TurnPage { items, next_cursor })
}

/// Those that have not ended: as many as a session can have waiting, and one.
pub(crate) async fn open(pool: &SqlitePool, org: OrgId, session: SessionId) -> Result<Vec<Turn>, StoreError> {
    let rows = sqlx::query("SELECT body FROM turns WHERE org_id = ? AND session_id = ? AND NOT ended ORDER BY number")
        .bind(org.to_string())
        .bind(session.to_string())
        .fetch_all(pool)
        .await?;
    rows.iter().map(|found| row::json(found, 0, "turns")).collect()
}
