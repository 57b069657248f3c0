//! Reading deliveries, and the secrets that messages are signed with.

use sqlx::{Row as _, SqliteExecutor, SqlitePool, sqlite::SqliteRow};
use wire::{DeliveryId, DeliveryPage, DeliveryStatus, OrgId, Timestamp, WebhookDelivery, WebhookEventType};

use super::cursor;
use crate::{DeliveryFilter, StoreError, WebhookSecretRecord, sqlite::row};

const LIST: &str = "deliveries/1";

/// What [`delivery`] reads.
const COLUMNS: &str = "id, session_id, event, url, status, attempts, created_ms, due_ms, last, finished_ms, seq";

pub(crate) async fn page(pool: &SqlitePool, org: OrgId, filter: &DeliveryFilter) -> Result<DeliveryPage, StoreError> {
    let before = filter.cursor.as_deref().map(|text| read_cursor(org, text)).transpose()?;
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM deliveries WHERE org_id = ?1 AND (?2 IS NULL OR seq < ?2) \
         AND (?3 IS NULL OR session_id = ?3) AND (?4 IS NULL OR status = ?4) ORDER BY seq DESC LIMIT ?5"
    )))
    .bind(org.to_string())
    .bind(before)
    .bind(filter.session.map(|id| id.to_string()))
    .bind(filter.status.map(DeliveryStatus::as_str))
    .bind(i64::from(filter.limit) + 1)
    .fetch_all(pool)
    .await?;
    let wanted = usize::try_from(filter.limit).unwrap_or(usize::MAX);
    let more = rows.len() > wanted;
    let shown = &rows[..rows.len().min(wanted)];
    let items: Vec<WebhookDelivery> = shown.iter().map(delivery).collect::<Result<_, _>>()?;
    let next_cursor = match shown.last().filter(|_| more) {
        Some(last) => Some(cursor::write(LIST, org, &last.try_get::<i64, _>(10)?.to_string())),
        None => None,
    };
    Ok(DeliveryPage { items, next_cursor })
}

fn read_cursor(org: OrgId, text: &str) -> Result<i64, StoreError> {
    cursor::read(LIST, org, text)?.parse().map_err(|_| StoreError::BadCursor)
}

pub(crate) async fn by_id(
    pool: &SqlitePool,
    org: OrgId,
    id: DeliveryId,
) -> Result<Option<WebhookDelivery>, StoreError> {
    let found =
        sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM deliveries WHERE org_id = ? AND id = ?")))
            .bind(org.to_string())
            .bind(id.to_string())
            .fetch_optional(pool)
            .await?;
    found.as_ref().map(delivery).transpose()
}

pub(crate) async fn next(pool: &SqlitePool, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let due: Option<i64> = sqlx::query("SELECT min(due_ms) FROM deliveries WHERE status = 'pending' AND due_ms > ?")
        .bind(after.as_millis())
        .fetch_one(pool)
        .await?
        .try_get(0)?;
    Ok(due.map(Timestamp::from_millis))
}

pub(crate) async fn secret<'e>(
    executor: impl SqliteExecutor<'e>,
    org: OrgId,
) -> Result<Option<WebhookSecretRecord>, sqlx::Error> {
    let found = sqlx::query(
        "SELECT version, sealed, created_ms, previous, previous_until_ms FROM webhook_secrets WHERE org_id = ?",
    )
    .bind(org.to_string())
    .fetch_optional(executor)
    .await?;
    let Some(found) = found else { return Ok(None) };
    let (previous, until): (Option<Vec<u8>>, Option<i64>) = (found.try_get(3)?, found.try_get(4)?);
    Ok(Some(WebhookSecretRecord {
        version: u64::try_from(found.try_get::<i64, _>(0)?).unwrap_or(0),
        sealed: found.try_get(1)?,
        created_at: Timestamp::from_millis(found.try_get(2)?),
        previous: previous.zip(until.map(Timestamp::from_millis)),
    }))
}

fn delivery(found: &SqliteRow) -> Result<WebhookDelivery, StoreError> {
    let id: DeliveryId = row::id(found, 0)?;
    let status: DeliveryStatus = word(found, 4)?;
    let last: Option<String> = found.try_get(8)?;
    Ok(WebhookDelivery {
        id,
        message_id: id.message_id(),
        session_id: row::id(found, 1)?,
        kind: word::<WebhookEventType>(found, 2)?,
        url: found.try_get(3)?,
        status,
        attempts: u32::try_from(found.try_get::<i64, _>(5)?).unwrap_or(u32::MAX),
        created_at: Timestamp::from_millis(found.try_get(6)?),
        next_attempt_at: match status {
            DeliveryStatus::Pending => Some(Timestamp::from_millis(found.try_get(7)?)),
            DeliveryStatus::Delivered | DeliveryStatus::Failed => None,
        },
        last_attempt: match last {
            Some(_) => Some(row::json(found, 8, "deliveries")?),
            None => None,
        },
        finished_at: found.try_get::<Option<i64>, _>(9)?.map(Timestamp::from_millis),
    })
}

/// An enum of the contract from its word.
pub(crate) fn word<T: serde::de::DeserializeOwned>(found: &SqliteRow, column: usize) -> Result<T, StoreError> {
    let word: String = found.try_get(column)?;
    serde_json::from_value(word.into()).map_err(|source| StoreError::Corrupt { table: "deliveries", source })
}
