//! Reading bindings.

use sqlx::{Row as _, SqlitePool, sqlite::SqliteRow};
use wire::{Binding, BindingId, BindingPage, OrgId};

use super::cursor;
use crate::{BindingFilter, BindingRecord, StoreError, sqlite::row};

const LIST: &str = "bindings/1";

pub(crate) async fn page(pool: &SqlitePool, org: OrgId, filter: &BindingFilter) -> Result<BindingPage, StoreError> {
    let after = filter.cursor.as_deref().map(|text| cursor::read(LIST, org, text)).transpose()?;
    let rows = sqlx::query(
        "SELECT body FROM bindings WHERE org_id = ?1 AND (?2 IS NULL OR name > ?2) AND (?3 IS NULL OR name = ?3) \
         ORDER BY name LIMIT ?4",
    )
    .bind(org.to_string())
    .bind(after)
    .bind(filter.name.as_deref())
    .bind(i64::from(filter.limit) + 1)
    .fetch_all(pool)
    .await?;
    let wanted = usize::try_from(filter.limit).unwrap_or(usize::MAX);
    let more = rows.len() > wanted;
    let items: Vec<Binding> = rows.iter().take(wanted).map(|found| body(found, 0)).collect::<Result<_, _>>()?;
    let next_cursor = items.last().filter(|_| more).map(|last| cursor::write(LIST, org, &last.spec.name));
    Ok(BindingPage { items, next_cursor })
}

pub(crate) async fn by_id(pool: &SqlitePool, org: OrgId, id: BindingId) -> Result<Option<BindingRecord>, StoreError> {
    let found = sqlx::query("SELECT body, sealed, revision FROM bindings WHERE org_id = ? AND id = ?")
        .bind(org.to_string())
        .bind(id.to_string())
        .fetch_optional(pool)
        .await?;
    found.map(|found| record(&found)).transpose()
}

pub(crate) async fn by_name(pool: &SqlitePool, org: OrgId, name: &str) -> Result<Option<BindingRecord>, StoreError> {
    let found = sqlx::query("SELECT body, sealed, revision FROM bindings WHERE org_id = ? AND name = ?")
        .bind(org.to_string())
        .bind(name)
        .fetch_optional(pool)
        .await?;
    found.map(|found| record(&found)).transpose()
}

fn record(found: &SqliteRow) -> Result<BindingRecord, StoreError> {
    Ok(BindingRecord {
        binding: body(found, 0)?,
        sealed: found.try_get(1)?,
        revision: u64::try_from(found.try_get::<i64, _>(2)?).unwrap_or(0),
    })
}

fn body(found: &SqliteRow, column: usize) -> Result<Binding, StoreError> {
    row::json(found, column, "bindings")
}
