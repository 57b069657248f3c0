//! Reading artifacts.

use sqlx::{Row as _, SqlitePool, sqlite::SqliteRow};
use wire::{Artifact, OrgId, SessionId, Timestamp};

use crate::{KeptArtifact, StoreError, sqlite::row};

/// Sessions whose artifacts are told to be removed at once.
const AT_ONCE: i64 = 100;

pub(crate) async fn of(pool: &SqlitePool, org: OrgId, session: SessionId) -> Result<Vec<KeptArtifact>, StoreError> {
    let rows = sqlx::query(
        "SELECT path, number, size, sha256 FROM artifacts WHERE org_id = ? AND session_id = ? ORDER BY path",
    )
    .bind(org.to_string())
    .bind(session.to_string())
    .fetch_all(pool)
    .await?;
    rows.iter().map(kept).collect()
}

pub(crate) async fn at(
    pool: &SqlitePool,
    org: OrgId,
    session: SessionId,
    path: &str,
) -> Result<Option<KeptArtifact>, StoreError> {
    let found = sqlx::query(
        "SELECT path, number, size, sha256 FROM artifacts WHERE org_id = ? AND session_id = ? AND path = ?",
    )
    .bind(org.to_string())
    .bind(session.to_string())
    .bind(path)
    .fetch_optional(pool)
    .await?;
    found.as_ref().map(kept).transpose()
}

/// Of every org: sessions whose artifacts were kept before that time, and the oldest of orgs that have more than so many
/// bytes, as many as it takes.
pub(crate) async fn surplus(
    pool: &SqlitePool,
    before: Timestamp,
    quota_bytes: u64,
) -> Result<Vec<(OrgId, SessionId)>, StoreError> {
    let rows = sqlx::query(
        "SELECT org_id, session_id FROM ( \
             SELECT org_id, session_id, made, \
                 sum(bytes) OVER (PARTITION BY org_id ORDER BY made DESC, session_id DESC) AS newer \
             FROM (SELECT org_id, session_id, max(created_ms) AS made, sum(size) AS bytes FROM artifacts \
                 GROUP BY org_id, session_id)) \
         WHERE made < ?1 OR newer > ?2 ORDER BY made LIMIT ?3",
    )
    .bind(before.as_millis())
    .bind(i64::try_from(quota_bytes).unwrap_or(i64::MAX))
    .bind(AT_ONCE)
    .fetch_all(pool)
    .await?;
    rows.iter().map(|found| Ok((row::id(found, 0)?, row::id(found, 1)?))).collect()
}

/// Whether any org has artifacts of that session.
pub(crate) async fn exist(pool: &SqlitePool, session: SessionId) -> Result<bool, StoreError> {
    let found = sqlx::query("SELECT 1 FROM artifacts WHERE session_id = ? LIMIT 1")
        .bind(session.to_string())
        .fetch_optional(pool)
        .await?;
    Ok(found.is_some())
}

fn kept(found: &SqliteRow) -> Result<KeptArtifact, StoreError> {
    let number = |column| -> Result<u64, sqlx::Error> {
        u64::try_from(found.try_get::<i64, _>(column)?).map_err(|error| sqlx::Error::Decode(Box::new(error)))
    };
    Ok(KeptArtifact {
        artifact: Artifact { path: found.try_get(0)?, size: number(2)?, sha256: found.try_get(3)? },
        number: u32::try_from(number(1)?).unwrap_or(u32::MAX),
    })
}
