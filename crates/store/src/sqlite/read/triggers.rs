//! Reading triggers and their firings.

use sqlx::{Row as _, SqlitePool, sqlite::SqliteRow};
use wire::{OrgId, Timestamp, Trigger, TriggerId, TriggerPage, TriggerRun};

use super::{cursor, webhooks::word};
use crate::{DueTrigger, NextFiring, StoreError, TriggerFilter, TriggerRecord, WaitingFiring, sqlite::row};

const LIST: &str = "triggers/1";

/// A session of a trigger that has not ended.
pub(crate) const UNDER_WAY: &str = "EXISTS (SELECT 1 FROM firings u JOIN sessions s ON s.org_id = u.org_id AND \
     s.id = u.session_id WHERE u.org_id = t.org_id AND u.trigger_id = t.id AND s.phase IN ('pending', 'running', 'paused'))";

pub(crate) async fn page(pool: &SqlitePool, org: OrgId, filter: &TriggerFilter) -> Result<TriggerPage, StoreError> {
    let after = filter.cursor.as_deref().map(|text| cursor::read(LIST, org, text)).transpose()?;
    let rows = sqlx::query(
        "SELECT body, sealed, revision, next_due_ms, next_ms FROM triggers WHERE org_id = ?1 AND (?2 IS NULL OR name > ?2) \
         ORDER BY name LIMIT ?3",
    )
    .bind(org.to_string())
    .bind(after)
    .bind(i64::from(filter.limit) + 1)
    .fetch_all(pool)
    .await?;
    let wanted = usize::try_from(filter.limit).unwrap_or(usize::MAX);
    let more = rows.len() > wanted;
    let items: Vec<Trigger> =
        rows.iter().take(wanted).map(|found| Ok(record(found, 0)?.trigger)).collect::<Result<_, StoreError>>()?;
    let next_cursor = items.last().filter(|_| more).map(|last| cursor::write(LIST, org, &last.name));
    Ok(TriggerPage { items, next_cursor })
}

pub(crate) async fn by_id(pool: &SqlitePool, org: OrgId, id: TriggerId) -> Result<Option<TriggerRecord>, StoreError> {
    let found =
        sqlx::query("SELECT body, sealed, revision, next_due_ms, next_ms FROM triggers WHERE org_id = ? AND id = ?")
            .bind(org.to_string())
            .bind(id.to_string())
            .fetch_optional(pool)
            .await?;
    found.map(|found| record(&found, 0)).transpose()
}

/// Of whatever org.
pub(crate) async fn anywhere(pool: &SqlitePool, id: TriggerId) -> Result<Option<TriggerRecord>, StoreError> {
    let found = sqlx::query("SELECT body, sealed, revision, next_due_ms, next_ms FROM triggers WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(pool)
        .await?;
    found.map(|found| record(&found, 0)).transpose()
}

pub(crate) async fn runs(
    pool: &SqlitePool,
    org: OrgId,
    id: TriggerId,
    limit: u32,
) -> Result<Vec<TriggerRun>, StoreError> {
    let rows = sqlx::query(
        "SELECT cause, due_ms, fired_ms, outcome, session_id, detail FROM firings WHERE org_id = ? AND trigger_id = ? \
         ORDER BY seq DESC LIMIT ?",
    )
    .bind(org.to_string())
    .bind(id.to_string())
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.iter().map(run).collect()
}

pub(crate) fn run(found: &SqliteRow) -> Result<TriggerRun, StoreError> {
    let session: Option<String> = found.try_get(4)?;
    Ok(TriggerRun {
        cause: word(found, 0)?,
        due_at: Timestamp::from_millis(found.try_get(1)?),
        fired_at: Timestamp::from_millis(found.try_get(2)?),
        outcome: word(found, 3)?,
        session_id: match session {
            Some(_) => Some(row::id(found, 4)?),
            None => None,
        },
        detail: found.try_get(5)?,
    })
}

pub(crate) async fn due(pool: &SqlitePool, now: Timestamp, limit: u32) -> Result<Vec<DueTrigger>, StoreError> {
    let rows = sqlx::query(
        "SELECT body, sealed, revision, next_due_ms, next_ms FROM triggers WHERE next_ms <= ? ORDER BY next_ms, id LIMIT ?",
    )
    .bind(now.as_millis())
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    let due = |found: &SqliteRow| {
        let record = record(found, 0)?;
        Ok(record.next.map(|next| DueTrigger { org: record.trigger.org_id, record, next }))
    };
    rows.iter().filter_map(|found| due(found).transpose()).collect()
}

pub(crate) async fn next(pool: &SqlitePool, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let next: Option<i64> = sqlx::query("SELECT min(next_ms) FROM triggers WHERE next_ms > ?")
        .bind(after.as_millis())
        .fetch_one(pool)
        .await?
        .try_get(0)?;
    Ok(next.map(Timestamp::from_millis))
}

/// The first firing in each queue whose turn has come.
pub(crate) async fn waiting(pool: &SqlitePool, limit: u32) -> Result<Vec<WaitingFiring>, StoreError> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT t.body, t.sealed, t.revision, t.next_due_ms, t.next_ms, f.key, f.cause, f.due_ms, f.body FROM firings f INDEXED BY firings_queued \
         JOIN triggers t ON t.org_id = f.org_id AND t.id = f.trigger_id WHERE f.outcome = 'queued' \
         AND f.seq = (SELECT min(q.seq) FROM firings q WHERE q.org_id = t.org_id AND q.trigger_id = t.id AND q.outcome = 'queued') \
         AND NOT {UNDER_WAY} ORDER BY f.seq LIMIT ?"
    )))
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    let waiting = |found: &SqliteRow| {
        let record = record(found, 0)?;
        Ok(WaitingFiring {
            org: record.trigger.org_id,
            record,
            key: found.try_get(5)?,
            cause: word(found, 6)?,
            due: Timestamp::from_millis(found.try_get(7)?),
            body: found.try_get(8)?,
        })
    };
    rows.iter().map(waiting).collect()
}

/// `body, sealed, revision, next_due_ms, next_ms`, from this column on.
fn record(found: &SqliteRow, at: usize) -> Result<TriggerRecord, StoreError> {
    let mut trigger: Trigger = row::json(found, at, "triggers")?;
    let (due, start): (Option<i64>, Option<i64>) = (found.try_get(at + 3)?, found.try_get(at + 4)?);
    let next =
        due.zip(start).map(|(due, at)| NextFiring { due: Timestamp::from_millis(due), at: Timestamp::from_millis(at) });
    trigger.next_fire_at = next.map(|next| next.at);
    Ok(TriggerRecord {
        trigger,
        sealed: found.try_get(at + 1)?,
        revision: u64::try_from(found.try_get::<i64, _>(at + 2)?).unwrap_or(0),
        next,
    })
}
