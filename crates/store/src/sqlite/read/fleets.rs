//! Reading fleets and their members.
//!
//! What a member is stands in its session's row alone, so that the two cannot say different things.

use futures::TryStreamExt as _;
use model::fleet::MemberRecord;
use sqlx::{Row as _, SqliteExecutor, SqlitePool, sqlite::SqliteRow};
use wire::{
    AuditType, Fleet, FleetEndReason, FleetId, FleetMemberPage, FleetPage, FleetResult, FleetResultPage, JsonText,
    OrgId, SessionResult,
};

use super::cursor;
use crate::{CreateError, FleetFilter, Idempotency, MemberFilter, Seat, StoreError, Task, sqlite::row};

const LIST: &str = "fleets/1";
/// Bytes of results on one page; one that is larger stands alone.
const RESULT_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// A member's phase, as `MemberRecord::view` tells it.
const PHASE: &str = "CASE WHEN m.fault IS NOT NULL THEN 'failed' \
    WHEN s.id IS NULL THEN iif(m.ended_by IS NULL, 'queued', 'skipped') \
    WHEN s.phase = 'paused' THEN 'running' \
    WHEN s.phase <> 'torn_down' THEN s.phase \
    ELSE CASE s.body ->> '$.outcome' WHEN 'succeeded' THEN 'succeeded' WHEN 'killed' THEN 'killed' \
        WHEN 'cancelled' THEN 'killed' ELSE 'failed' END END";

pub(in crate::sqlite) async fn by_id(pool: &SqlitePool, org: OrgId, id: FleetId) -> Result<Option<Fleet>, StoreError> {
    let found = sqlx::query("SELECT body FROM fleets WHERE org_id = ? AND id = ?")
        .bind(org.to_string())
        .bind(id.to_string())
        .fetch_optional(pool)
        .await?;
    found.map(|found| row::json(&found, 0, "fleets")).transpose()
}

pub(in crate::sqlite) async fn repeated(
    pool: &SqlitePool,
    org: OrgId,
    idempotency: &Idempotency,
) -> Result<Option<Fleet>, CreateError> {
    let Some(earlier) = by_key(pool, org, &idempotency.key).await.map_err(StoreError::from)? else { return Ok(None) };
    if earlier.try_get::<String, _>(1).map_err(StoreError::from)? != idempotency.request_digest {
        return Err(CreateError::IdempotencyConflict);
    }
    Ok(Some(row::json(&earlier, 0, "fleets")?))
}

/// `body, digest` of the fleet that a request with this idempotency key made, and of that request.
pub(in crate::sqlite) async fn by_key<'e>(
    executor: impl SqliteExecutor<'e>,
    org: OrgId,
    key: &str,
) -> Result<Option<SqliteRow>, sqlx::Error> {
    sqlx::query("SELECT body, idem_digest FROM fleets WHERE org_id = ? AND idem_key = ?")
        .bind(org.to_string())
        .bind(key)
        .fetch_optional(executor)
        .await
}

pub(in crate::sqlite) async fn page(
    pool: &SqlitePool,
    org: OrgId,
    filter: &FleetFilter,
) -> Result<FleetPage, StoreError> {
    let before = filter.cursor.as_deref().map(|cursor| cursor::read(LIST, org, cursor)).transpose()?;
    let rows =
        sqlx::query("SELECT body FROM fleets WHERE org_id = ?1 AND (?2 IS NULL OR id < ?2) ORDER BY id DESC LIMIT ?3")
            .bind(org.to_string())
            .bind(before)
            .bind(i64::from(filter.limit) + 1)
            .fetch_all(pool)
            .await?;
    let wanted = usize::try_from(filter.limit).unwrap_or(usize::MAX);
    let more = rows.len() > wanted;
    let items: Vec<Fleet> =
        rows.iter().take(wanted).map(|found| row::json(found, 0, "fleets")).collect::<Result<_, _>>()?;
    let next_cursor = items.last().filter(|_| more).map(|last| cursor::write(LIST, org, &last.id.to_string()));
    Ok(FleetPage { items, next_cursor })
}

pub(in crate::sqlite) async fn members(
    pool: &SqlitePool,
    org: OrgId,
    filter: &MemberFilter,
) -> Result<FleetMemberPage, StoreError> {
    let rows = rows(pool, org, filter).await?;
    let wanted = usize::try_from(filter.limit).unwrap_or(usize::MAX);
    let items = rows.iter().take(wanted).map(|found| record(found).map(|record| record.view()));
    let items = items.collect::<Result<Vec<_>, _>>()?;
    let last = items.last().filter(|_| rows.len() > wanted).map(|last| last.index);
    Ok(FleetMemberPage { items, next_cursor: next(org, filter.fleet, last) })
}

pub(in crate::sqlite) async fn results(
    pool: &SqlitePool,
    org: OrgId,
    filter: &MemberFilter,
) -> Result<FleetResultPage, StoreError> {
    let after = read_cursor(org, filter)?;
    let query = query("m.idx, m.session_id, m.ended_by, m.fault, s.body, s.result");
    let mut found = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(org.to_string())
        .bind(filter.fleet.to_string())
        .bind(after)
        .bind(filter.phase.map(wire::MemberPhase::as_str))
        .bind(i64::from(filter.limit) + 1)
        .fetch(pool);
    let wanted = usize::try_from(filter.limit).unwrap_or(usize::MAX);
    let (mut items, mut bytes) = (Vec::<FleetResult>::new(), 0);
    let mut more = false;
    while let Some(found) = found.try_next().await? {
        if items.len() == wanted || bytes > RESULT_PAGE_BYTES {
            more = true;
            break;
        }
        let member = record(&found)?.view();
        let given: Option<SessionResult> = match found.try_get::<Option<&str>, _>(5)? {
            Some(_) => Some(row::json(&found, 5, "sessions")?),
            None => None,
        };
        let exit_code = given.as_ref().and_then(|given| given.exit_code);
        let result = given.and_then(|given| given.result);
        bytes += result.as_ref().map_or(0, |result: &JsonText| result.as_str().len());
        items.push(FleetResult {
            index: member.index,
            session_id: member.session_id,
            phase: member.phase,
            outcome: member.outcome,
            exit_code,
            result,
        });
    }
    let last = items.last().filter(|_| more).map(|last| last.index);
    Ok(FleetResultPage { items, next_cursor: next(org, filter.fleet, last) })
}

async fn rows(pool: &SqlitePool, org: OrgId, filter: &MemberFilter) -> Result<Vec<SqliteRow>, StoreError> {
    let after = read_cursor(org, filter)?;
    let query = query("m.idx, m.session_id, m.ended_by, m.fault, s.body");
    Ok(sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(org.to_string())
        .bind(filter.fleet.to_string())
        .bind(after)
        .bind(filter.phase.map(wire::MemberPhase::as_str))
        .bind(i64::from(filter.limit) + 1)
        .fetch_all(pool)
        .await?)
}

/// Members with their sessions; the texts put together here are constants of ours.
fn query(columns: &str) -> String {
    format!(
        "SELECT {columns} FROM fleet_members m \
         LEFT JOIN sessions s ON s.org_id = m.org_id AND s.id = m.session_id \
         WHERE m.org_id = ?1 AND m.fleet_id = ?2 AND m.idx > ?3 AND (?4 IS NULL OR ?4 = ({PHASE})) \
         ORDER BY m.idx LIMIT ?5"
    )
}

/// `idx, session_id, ended_by, fault, session`.
fn record(row: &SqliteRow) -> Result<MemberRecord, StoreError> {
    let corrupt = |source| StoreError::Corrupt { table: "fleet_members", source };
    let index: i64 = row.try_get(0)?;
    let (ended_by, fault): (Option<String>, Option<String>) = (row.try_get(2)?, row.try_get(3)?);
    let session = match row.try_get::<Option<&str>, _>(4)? {
        Some(_) => Some(row::json(row, 4, "sessions")?),
        None => None,
    };
    Ok(MemberRecord {
        index: u32::try_from(index).map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
        session,
        ended_by: ended_by.map(|word| reason(&word)).transpose().map_err(corrupt)?,
        fault: fault.map(|text| serde_json::from_str(&text)).transpose().map_err(corrupt)?,
    })
}

fn reason(word: &str) -> Result<FleetEndReason, serde_json::Error> {
    serde_json::from_value(word.into())
}

fn list(fleet: FleetId) -> String {
    format!("members/1 {fleet}")
}

fn next(org: OrgId, fleet: FleetId, last: Option<u32>) -> Option<String> {
    last.map(|last| cursor::write(&list(fleet), org, &last.to_string()))
}

/// The place behind which the page begins.
fn read_cursor(org: OrgId, filter: &MemberFilter) -> Result<i64, StoreError> {
    let Some(cursor) = filter.cursor.as_deref() else { return Ok(-1) };
    cursor::read(&list(filter.fleet), org, cursor)?.parse().map_err(|_| StoreError::BadCursor)
}

pub(in crate::sqlite) async fn task(pool: &SqlitePool, org: OrgId, seat: Seat) -> Result<Option<Task>, StoreError> {
    let found = sqlx::query(
        "SELECT f.template, m.task FROM fleet_members m JOIN fleets f ON f.org_id = m.org_id AND f.id = m.fleet_id \
         WHERE m.org_id = ? AND m.fleet_id = ? AND m.idx = ?",
    )
    .bind(org.to_string())
    .bind(seat.fleet.to_string())
    .bind(i64::from(seat.index))
    .fetch_optional(pool)
    .await?;
    Ok(found
        .map(|found| Ok::<_, sqlx::Error>(Task { template: found.try_get(0)?, task: found.try_get(1)? }))
        .transpose()?)
}

pub(in crate::sqlite) async fn binding_calls(pool: &SqlitePool, org: OrgId, id: FleetId) -> Result<u64, StoreError> {
    let found = sqlx::query(
        // Member by member: the planner would read the whole log of the org for each of them.
        "SELECT count(*) FROM fleet_members m CROSS JOIN audit a INDEXED BY audit_of_session \
         ON a.org_id = m.org_id AND a.session_id = m.session_id WHERE m.org_id = ? AND m.fleet_id = ? AND a.canonical ->> '$.type' = ?",
    )
    .bind(org.to_string())
    .bind(id.to_string())
    .bind(AuditType::BindingInvoked.as_str())
    .fetch_one(pool)
    .await?;
    Ok(u64::try_from(found.try_get::<i64, _>(0)?).unwrap_or(0))
}

pub(in crate::sqlite) async fn unfinished(pool: &SqlitePool) -> Result<Vec<Fleet>, StoreError> {
    let rows = sqlx::query("SELECT body FROM fleets WHERE phase IN ('pending', 'running')").fetch_all(pool).await?;
    rows.iter().map(|found| row::json(found, 0, "fleets")).collect()
}
