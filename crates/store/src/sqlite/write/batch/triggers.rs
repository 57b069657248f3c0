//! Changes of triggers, and firings that are taken up: each once.

use sqlx::Row as _;
use wire::{FiringOutcome, OrgId, SessionId, Timestamp, Trigger, TriggerId, TriggerRun};

use super::{Batch, sealable};
use crate::{
    Alone, Firing, NotFired, StoreError, TriggerChange, TriggerError, TriggerRecord, Unstarted, Waited,
    sqlite::{read::triggers::UNDER_WAY, row},
};

/// Firings of a trigger that are kept, beside those that wait or whose sessions are under way.
const KEPT: i64 = 50;

/// What stands in the way of a firing.
type Checked = Result<(), NotFired>;

impl Batch<'_> {
    /// Carries out a change, or says why not.
    pub(super) async fn trigger(
        &mut self,
        org: OrgId,
        change: &TriggerChange,
    ) -> Result<Result<(), TriggerError>, sqlx::Error> {
        let (TriggerChange::Create { draft, .. }
        | TriggerChange::Update { draft, .. }
        | TriggerChange::Delete { draft, .. }) = change;
        let drafts = std::slice::from_ref(draft);
        if let Err(refused) = sealable(drafts) {
            return Ok(Err(refused.store().into()));
        }
        let known = self.chain(org).await?;
        let changed = match change {
            TriggerChange::Create { .. } if !known => Err(StoreError::UnknownOrg.into()),
            TriggerChange::Update { .. } | TriggerChange::Delete { .. } if !known => Err(TriggerError::NotFound),
            TriggerChange::Create { record, .. } | TriggerChange::Update { record, .. }
                if record.trigger.org_id != org =>
            {
                Err(StoreError::ForeignRecord.into())
            }
            TriggerChange::Create { record, .. } => self.create_trigger(org, record).await?,
            TriggerChange::Update { record, .. } => self.update_trigger(org, record).await?,
            TriggerChange::Delete { id, .. } => self.delete_trigger(org, *id).await?,
        };
        Ok(changed.map(|()| drop(self.seal(org, drafts))))
    }

    async fn create_trigger(
        &mut self,
        org: OrgId,
        record: &TriggerRecord,
    ) -> Result<Result<(), TriggerError>, sqlx::Error> {
        let inserted = sqlx::query(
            "INSERT INTO triggers (org_id, id, name, revision, body, sealed, next_due_ms, next_ms) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(org.to_string())
        .bind(record.trigger.id.to_string())
        .bind(&record.trigger.name)
        .bind(number(record.revision))
        .bind(body(&record.trigger))
        .bind(record.sealed.as_deref())
        .bind(record.next.map(|next| next.due.as_millis()))
        .bind(record.next.map(|next| next.at.as_millis()))
        .execute(&mut *self.connection)
        .await?;
        if inserted.rows_affected() > 0 {
            return Ok(Ok(()));
        }
        // Whosever it is: ids of triggers are looked for in every org.
        let same_id = sqlx::query("SELECT 1 FROM triggers WHERE id = ?")
            .bind(record.trigger.id.to_string())
            .fetch_optional(&mut *self.connection)
            .await?;
        Ok(Err(match same_id {
            Some(_) => StoreError::Taken(record.trigger.id.to_string()).into(),
            None => TriggerError::NameTaken,
        }))
    }

    async fn update_trigger(
        &mut self,
        org: OrgId,
        record: &TriggerRecord,
    ) -> Result<Result<(), TriggerError>, sqlx::Error> {
        let found = sqlx::query("SELECT revision, name FROM triggers WHERE org_id = ? AND id = ?")
            .bind(org.to_string())
            .bind(record.trigger.id.to_string())
            .fetch_optional(&mut *self.connection)
            .await?;
        let Some(found) = found else { return Ok(Err(TriggerError::NotFound)) };
        let stands: (i64, String) = (found.try_get(0)?, found.try_get(1)?);
        if stands != (number(record.revision), record.trigger.name.clone()) {
            return Ok(Err(TriggerError::Stale));
        }
        sqlx::query(
            "UPDATE triggers SET revision = revision + 1, body = ?, sealed = ?, next_due_ms = ?, next_ms = ? \
             WHERE org_id = ? AND id = ?",
        )
        .bind(body(&record.trigger))
        .bind(record.sealed.as_deref())
        .bind(record.next.map(|next| next.due.as_millis()))
        .bind(record.next.map(|next| next.at.as_millis()))
        .bind(org.to_string())
        .bind(record.trigger.id.to_string())
        .execute(&mut *self.connection)
        .await?;
        Ok(Ok(()))
    }

    async fn delete_trigger(&mut self, org: OrgId, id: TriggerId) -> Result<Result<(), TriggerError>, sqlx::Error> {
        let deleted = sqlx::query("DELETE FROM triggers WHERE org_id = ? AND id = ?")
            .bind(org.to_string())
            .bind(id.to_string())
            .execute(&mut *self.connection)
            .await?;
        Ok(if deleted.rows_affected() > 0 { Ok(()) } else { Err(TriggerError::NotFound) })
    }

    /// Whether a firing may be taken up, and start a session. Writes nothing.
    pub(super) async fn may_fire(&mut self, org: OrgId, firing: &Firing) -> Result<Checked, sqlx::Error> {
        if let Err(refused) = self.is_new(org, firing).await? {
            return Ok(Err(refused));
        }
        if firing.alone == Alone::NotNeeded {
            return Ok(Ok(()));
        }
        let is_under_way = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT 1 FROM triggers t WHERE t.org_id = ? AND t.id = ? AND {UNDER_WAY}"
        )))
        .bind(org.to_string())
        .bind(firing.trigger.to_string())
        .fetch_optional(&mut *self.connection)
        .await?
        .is_some();
        Ok(if is_under_way { Err(NotFired::Overlaps) } else { Ok(()) })
    }

    async fn is_new(&mut self, org: OrgId, firing: &Firing) -> Result<Checked, sqlx::Error> {
        let (org, trigger) = (org.to_string(), firing.trigger.to_string());
        let there = sqlx::query("SELECT 1 FROM triggers WHERE org_id = ? AND id = ?")
            .bind(&org)
            .bind(&trigger)
            .fetch_optional(&mut *self.connection)
            .await?;
        if there.is_none() {
            return Ok(Err(NotFired::Gone));
        }
        let stands: Option<String> =
            sqlx::query("SELECT outcome FROM firings WHERE org_id = ? AND trigger_id = ? AND key = ?")
                .bind(&org)
                .bind(&trigger)
                .bind(&firing.key)
                .fetch_optional(&mut *self.connection)
                .await?
                .map(|found| found.try_get(0))
                .transpose()?;
        let waits = stands.as_deref() == Some(FiringOutcome::Queued.as_str());
        match firing.waited {
            Waited::Yes if waits => return Ok(Ok(())),
            Waited::No if stands.is_none() => {}
            Waited::Yes | Waited::No => {
                // A time of day that was set back makes a moment come again: its firing is over, the schedule goes on.
                self.move_on(&org, firing).await?;
                return Ok(Err(NotFired::Taken));
            }
        }
        let Some((message, _)) = &firing.message else { return Ok(Ok(())) };
        let seen = sqlx::query("SELECT 1 FROM hook_messages WHERE org_id = ? AND trigger_id = ? AND message_id = ?")
            .bind(&org)
            .bind(&trigger)
            .bind(message)
            .fetch_optional(&mut *self.connection)
            .await?;
        Ok(if seen.is_some() { Err(NotFired::Taken) } else { Ok(()) })
    }

    /// Sets a schedule to its next firing. Whoever changed it meanwhile has said when that is.
    async fn move_on(&mut self, org: &str, firing: &Firing) -> Result<(), sqlx::Error> {
        let Some(next) = &firing.next else { return Ok(()) };
        sqlx::query("UPDATE triggers SET next_due_ms = ?, next_ms = ? WHERE org_id = ? AND id = ? AND next_due_ms = ?")
            .bind(next.due.as_millis())
            .bind(next.at.as_millis())
            .bind(org)
            .bind(firing.trigger.to_string())
            .bind(firing.due.as_millis())
            .execute(&mut *self.connection)
            .await
            .map(drop)
    }

    /// Records a firing that was found to be one that may be taken up.
    pub(super) async fn fire(
        &mut self,
        org: OrgId,
        firing: &Firing,
        outcome: FiringOutcome,
        (session, detail, body): (Option<SessionId>, Option<&str>, Option<&[u8]>),
    ) -> Result<(), sqlx::Error> {
        let (org, trigger) = (org.to_string(), firing.trigger.to_string());
        sqlx::query(
            "INSERT INTO firings (org_id, trigger_id, key, cause, due_ms, fired_ms, outcome, session_id, detail, body) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (org_id, trigger_id, key) DO UPDATE SET \
             fired_ms = excluded.fired_ms, outcome = excluded.outcome, session_id = excluded.session_id, \
             detail = excluded.detail, body = excluded.body",
        )
        .bind(&org)
        .bind(&trigger)
        .bind(&firing.key)
        .bind(firing.cause.as_str())
        .bind(firing.due.as_millis())
        .bind(firing.now.as_millis())
        .bind(outcome.as_str())
        .bind(session.map(|id| id.to_string()))
        .bind(detail)
        .bind(body)
        .execute(&mut *self.connection)
        .await?;
        if let Some((message, until)) = &firing.message {
            sqlx::query("DELETE FROM hook_messages WHERE until_ms < ?")
                .bind(firing.now.as_millis())
                .execute(&mut *self.connection)
                .await?;
            sqlx::query("INSERT INTO hook_messages (org_id, trigger_id, message_id, until_ms) VALUES (?, ?, ?, ?)")
                .bind(&org)
                .bind(&trigger)
                .bind(message)
                .bind(until.as_millis())
                .execute(&mut *self.connection)
                .await?;
        }
        self.move_on(&org, firing).await?;
        sqlx::query(
            "DELETE FROM firings WHERE org_id = ?1 AND trigger_id = ?2 AND outcome <> 'queued' \
             AND seq <= (SELECT seq FROM firings WHERE org_id = ?1 AND trigger_id = ?2 ORDER BY seq DESC LIMIT 1 OFFSET ?3) \
             AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.org_id = firings.org_id AND s.id = firings.session_id \
                 AND s.phase IN ('pending', 'running', 'paused'))",
        )
        .bind(&org)
        .bind(&trigger)
        .bind(KEPT)
        .execute(&mut *self.connection)
        .await
        .map(drop)
    }

    /// Records a firing that starts no session, or none yet.
    pub(super) async fn unstarted(
        &mut self,
        org: OrgId,
        unstarted: &Unstarted,
    ) -> Result<Result<TriggerRun, NotFired>, sqlx::Error> {
        let firing = &unstarted.firing;
        let drafts = std::slice::from_ref(&unstarted.draft);
        if let Err(refused) = sealable(drafts) {
            return Ok(Err(refused.store().into()));
        }
        if !self.chain(org).await? {
            return Ok(Err(NotFired::Gone));
        }
        if let Err(refused) = self.is_new(org, firing).await? {
            return Ok(Err(refused));
        }
        let waiting: i64 =
            sqlx::query("SELECT count(*) FROM firings WHERE org_id = ? AND trigger_id = ? AND outcome = 'queued'")
                .bind(org.to_string())
                .bind(firing.trigger.to_string())
                .fetch_one(&mut *self.connection)
                .await?
                .try_get(0)?;
        let is_full = waiting >= i64::from(unstarted.most_waiting);
        let (outcome, detail, body) = match unstarted.outcome {
            FiringOutcome::Queued if is_full => {
                (FiringOutcome::Skipped, Some("too many firings are waiting already".to_owned()), None)
            }
            FiringOutcome::Queued => (FiringOutcome::Queued, unstarted.detail.clone(), unstarted.body.as_deref()),
            outcome @ (FiringOutcome::Started | FiringOutcome::Skipped | FiringOutcome::Refused) => {
                (outcome, unstarted.detail.clone(), None)
            }
        };
        self.fire(org, firing, outcome, (None, detail.as_deref(), body)).await?;
        let mut draft = unstarted.draft.clone();
        draft.data["outcome"] = outcome.as_str().into();
        self.seal(org, &[draft]);
        let run = TriggerRun {
            cause: firing.cause,
            due_at: firing.due,
            fired_at: firing.now,
            outcome,
            session_id: None,
            detail,
        };
        Ok(Ok(run))
    }
}

/// What is kept of a trigger beside its columns.
fn body(trigger: &Trigger) -> String {
    row::text(&Trigger { next_fire_at: None::<Timestamp>, ..trigger.clone() })
}

/// Of use in a column; nobody changes a trigger so often.
fn number(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}
