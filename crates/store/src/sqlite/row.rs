//! Between rows and records.

use std::{error::Error, str::FromStr};

use model::audit::{Head, canonical_event};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row, sqlite::SqliteRow};
use wire::{AuditEvent, Timestamp};

use crate::{KeyRecord, StoreError};

/// JSON text of something that we made ourselves.
pub(super) fn text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our records have string keys only")
}

/// A record from its JSON text, however deep: it was bounded where it came in, and a record that is written must be read.
pub(super) fn json<T: DeserializeOwned>(row: &SqliteRow, column: usize, table: &'static str) -> Result<T, StoreError> {
    let text: String = row.try_get(column)?;
    let mut reader = serde_json::Deserializer::from_str(&text);
    reader.disable_recursion_limit();
    let record = T::deserialize(&mut reader).and_then(|record| reader.end().map(|()| record));
    record.map_err(|source| StoreError::Corrupt { table, source })
}

/// An id from its text.
pub(super) fn id<T>(row: &SqliteRow, column: usize) -> Result<T, sqlx::Error>
where
    T: FromStr,
    T::Err: Error + Send + Sync + 'static,
{
    row.try_get::<String, _>(column)?.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// `head_seq, head_hash`.
pub(super) fn head(row: &SqliteRow) -> Result<Head, sqlx::Error> {
    Ok(Head { seq: seq(row, 0)?, hash: row.try_get(1)? })
}

fn seq(row: &SqliteRow, column: usize) -> Result<u64, sqlx::Error> {
    let seq: i64 = row.try_get(column)?;
    u64::try_from(seq).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// `canonical, hash, seq, session_id`: the view is read back from the very bytes that were hashed, and the columns beside
/// them, which decide who finds it where, must say the same.
pub(super) fn event(row: &SqliteRow) -> Result<AuditEvent, StoreError> {
    let mut fields: serde_json::Map<String, serde_json::Value> = json(row, 0, "audit")?;
    fields.insert("hash".to_owned(), row.try_get::<String, _>(1)?.into());
    let event: AuditEvent =
        serde_json::from_value(fields.into()).map_err(|source| StoreError::Corrupt { table: "audit", source })?;
    let (text, seq, session): (String, u64, Option<String>) = (row.try_get(0)?, seq(row, 2)?, row.try_get(3)?);
    let agrees = event.seq == seq && event.session_id.map(|id| id.to_string()) == session;
    if agrees && canonical_event(&event) == text { Ok(event) } else { Err(StoreError::Tampered { seq }) }
}

/// `id, org_id, name, role, scopes, secret_hash, created_ms, revoked_ms`.
pub(super) fn key(row: &SqliteRow) -> Result<KeyRecord, StoreError> {
    let role: String = row.try_get(3)?;
    let scopes: Option<String> = row.try_get(4)?;
    let corrupt = |source| StoreError::Corrupt { table: "keys", source };
    Ok(KeyRecord {
        id: id(row, 0)?,
        org: id(row, 1)?,
        name: row.try_get(2)?,
        role: serde_json::from_value(role.into()).map_err(corrupt)?,
        scopes: scopes.map(|text| serde_json::from_str(&text)).transpose().map_err(corrupt)?,
        secret_hash: row.try_get(5)?,
        created_at: Timestamp::from_millis(row.try_get(6)?),
        revoked_at: row.try_get::<Option<i64>, _>(7)?.map(Timestamp::from_millis),
    })
}
