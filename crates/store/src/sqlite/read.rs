//! Reading. Every statement that reads a tenant's rows names the org.

pub(super) mod artifacts;
pub(super) mod bindings;
mod cursor;
pub(super) mod fleets;
pub(super) mod triggers;
pub(super) mod turns;
pub(super) mod webhooks;

use model::audit::Head;
use sqlx::{Row, SqliteExecutor, SqlitePool, sqlite::SqliteRow};
use wire::{AuditEvent, KeyId, OrgId, Session, SessionId, SessionPage, SessionResult};

use crate::{
    AuditFilter, CreateError, Idempotency, KeyRecord, Org, SessionFilter, StoreError, Unfinished, sqlite::row,
};

const LIST: &str = "sessions/1";

/// Of every org.
pub(super) async fn sealed(pool: &SqlitePool) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let all = "SELECT id, sealed FROM bindings \
               UNION ALL SELECT id, sealed FROM triggers WHERE sealed IS NOT NULL \
               UNION ALL SELECT 'webhooks of ' || org_id, sealed FROM webhook_secrets";
    let rows = sqlx::query(all).fetch_all(pool).await?;
    rows.iter().map(|found| Ok((found.try_get(0)?, found.try_get(1)?))).collect()
}

pub(super) async fn session(pool: &SqlitePool, org: OrgId, id: SessionId) -> Result<Option<Session>, StoreError> {
    let found = sqlx::query("SELECT body FROM sessions WHERE org_id = ? AND id = ?")
        .bind(org.to_string())
        .bind(id.to_string())
        .fetch_optional(pool)
        .await?;
    found.map(|found| row::json(&found, 0, "sessions")).transpose()
}

pub(super) async fn repeated(
    pool: &SqlitePool,
    org: OrgId,
    idempotency: &Idempotency,
) -> Result<Option<Session>, CreateError> {
    let Some(earlier) = by_key(pool, org, &idempotency.key).await.map_err(StoreError::from)? else { return Ok(None) };
    if earlier.try_get::<String, _>(1).map_err(StoreError::from)? != idempotency.request_digest {
        return Err(CreateError::IdempotencyConflict);
    }
    Ok(Some(row::json(&earlier, 0, "sessions")?))
}

/// `body, digest` of the session that a request with this idempotency key made, and of that request.
pub(super) async fn by_key<'e>(
    executor: impl SqliteExecutor<'e>,
    org: OrgId,
    key: &str,
) -> Result<Option<SqliteRow>, sqlx::Error> {
    sqlx::query(
        "SELECT s.body, i.digest FROM idempotency i JOIN sessions s ON s.org_id = i.org_id AND s.id = i.session_id \
         WHERE i.org_id = ? AND i.key = ?",
    )
    .bind(org.to_string())
    .bind(key)
    .fetch_optional(executor)
    .await
}

pub(super) async fn result(pool: &SqlitePool, org: OrgId, id: SessionId) -> Result<Option<SessionResult>, StoreError> {
    let query = "SELECT result FROM sessions WHERE org_id = ? AND id = ? AND result IS NOT NULL";
    let found = sqlx::query(query).bind(org.to_string()).bind(id.to_string()).fetch_optional(pool).await?;
    found.map(|found| row::json(&found, 0, "sessions")).transpose()
}

pub(super) async fn sessions(pool: &SqlitePool, org: OrgId, filter: &SessionFilter) -> Result<SessionPage, StoreError> {
    let before = filter.cursor.as_deref().map(|cursor| read_cursor(org, cursor)).transpose()?;
    // Ids are time-ordered, so the order of ids is the order of creation. Labels are compared as given: each of the
    // wanted pairs must be among the session's own.
    let rows = sqlx::query(
        "SELECT body FROM sessions s WHERE org_id = ?1 AND (?2 IS NULL OR id < ?2) AND (?3 IS NULL OR phase = ?3) \
         AND NOT EXISTS (SELECT 1 FROM json_each(?4) w WHERE NOT EXISTS ( \
             SELECT 1 FROM json_each(s.body, '$.labels') l WHERE l.key = w.value ->> 0 AND l.value = w.value ->> 1)) \
         ORDER BY id DESC LIMIT ?5",
    )
    .bind(org.to_string())
    .bind(before.map(|id| id.to_string()))
    .bind(filter.phase.map(wire::Phase::as_str))
    .bind(row::text(&filter.labels))
    .bind(i64::from(filter.limit) + 1)
    .fetch_all(pool)
    .await?;
    let wanted = usize::try_from(filter.limit).unwrap_or(usize::MAX);
    let more = rows.len() > wanted;
    let items: Vec<Session> =
        rows.iter().take(wanted).map(|found| row::json(found, 0, "sessions")).collect::<Result<_, _>>()?;
    let next_cursor = items.last().filter(|_| more).map(|last| cursor::write(LIST, org, &last.id.to_string()));
    Ok(SessionPage { items, next_cursor })
}

fn read_cursor(org: OrgId, cursor: &str) -> Result<SessionId, StoreError> {
    cursor::read(LIST, org, cursor)?.parse().map_err(|_| StoreError::BadCursor)
}

pub(super) async fn audit(pool: &SqlitePool, org: OrgId, filter: &AuditFilter) -> Result<Vec<AuditEvent>, StoreError> {
    let after = i64::try_from(filter.after_seq).unwrap_or(i64::MAX);
    let rows =
        match filter.session {
            Some(session) => {
                sqlx::query(
                    // The planner would go through the whole log of the org.
                    "SELECT canonical, hash, seq, session_id FROM audit INDEXED BY audit_of_session \
             WHERE org_id = ? AND session_id = ? AND seq > ? ORDER BY seq LIMIT ?",
                )
                .bind(org.to_string())
                .bind(session.to_string())
                .bind(after)
                .bind(i64::from(filter.limit))
                .fetch_all(pool)
                .await?
            }
            None => sqlx::query(
                "SELECT canonical, hash, seq, session_id FROM audit WHERE org_id = ? AND seq > ? ORDER BY seq LIMIT ?",
            )
            .bind(org.to_string())
            .bind(after)
            .bind(i64::from(filter.limit))
            .fetch_all(pool)
            .await?,
        };
    rows.iter().map(row::event).collect()
}

pub(super) async fn head(pool: &SqlitePool, org: OrgId) -> Result<Head, StoreError> {
    let found = sqlx::query("SELECT head_seq, head_hash FROM orgs WHERE id = ?")
        .bind(org.to_string())
        .fetch_optional(pool)
        .await?;
    Ok(found.map(|found| row::head(&found)).transpose()?.unwrap_or_default())
}

pub(super) async fn keys(pool: &SqlitePool, org: OrgId) -> Result<Vec<KeyRecord>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, org_id, name, role, scopes, secret_hash, created_ms, revoked_ms FROM keys WHERE org_id = ? \
         ORDER BY id DESC",
    )
    .bind(org.to_string())
    .fetch_all(pool)
    .await?;
    rows.iter().map(row::key).collect()
}

pub(super) async fn key(pool: &SqlitePool, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
    let found = sqlx::query(
        "SELECT id, org_id, name, role, scopes, secret_hash, created_ms, revoked_ms FROM keys WHERE id = ?",
    )
    .bind(id.to_string())
    .fetch_optional(pool)
    .await?;
    found.map(|found| row::key(&found)).transpose()
}

pub(super) async fn unfinished(pool: &SqlitePool) -> Result<Vec<Unfinished>, StoreError> {
    let rows = sqlx::query("SELECT body, sandbox, webhook_url FROM sessions WHERE phase <> 'torn_down'")
        .fetch_all(pool)
        .await?;
    rows.iter()
        .map(|found| {
            Ok(Unfinished {
                session: row::json(found, 0, "sessions")?,
                sandbox: found.try_get(1)?,
                webhook_url: found.try_get(2)?,
            })
        })
        .collect()
}

pub(super) async fn orgs(pool: &SqlitePool) -> Result<Vec<Org>, StoreError> {
    let rows = sqlx::query("SELECT id, name FROM orgs ORDER BY name").fetch_all(pool).await?;
    rows.iter().map(|found| Ok(Org { id: row::id(found, 0)?, name: found.try_get(1)? })).collect()
}

pub(super) async fn ping(pool: &SqlitePool) -> Result<(), StoreError> {
    sqlx::query("SELECT 1").execute(pool).await?;
    Ok(())
}
