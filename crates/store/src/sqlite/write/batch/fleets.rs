//! Fleets and their members.

use sqlx::Row as _;
use wire::{AuditEvent, Fleet, FleetEndReason, FleetId, OrgId, SessionFault, Timestamp};

use super::{Batch, Refused, sealable};
use crate::{
    CreateError, Created, CreatedFleet, FleetChange, MemberError, NewFleet, NewSession, Seat, StoreError,
    sqlite::{read, row},
};

/// Members that go into one statement: bounds its text, which repeats what they are.
const ROWS: usize = 500;

impl Batch<'_> {
    pub(super) async fn create_fleet(
        &mut self,
        org: OrgId,
        new: &NewFleet,
    ) -> Result<Result<CreatedFleet, CreateError>, sqlx::Error> {
        if new.fleet.org_id != org {
            return Ok(Err(StoreError::ForeignRecord.into()));
        }
        if !self.chain(org).await? {
            return Ok(Err(StoreError::UnknownOrg.into()));
        }
        if let Err(refused) = sealable(&new.drafts) {
            return Ok(Err(refused.store().into()));
        }
        let (org_id, id) = (org.to_string(), new.fleet.id.to_string());
        if let Some(idempotency) = &new.idempotency
            && let Some(earlier) = read::fleets::by_key(&mut *self.connection, org, &idempotency.key).await?
        {
            if earlier.try_get::<String, _>(1)? != idempotency.request_digest {
                return Ok(Err(CreateError::IdempotencyConflict));
            }
            let fleet = row::json(&earlier, 0, "fleets");
            return Ok(fleet.map(|fleet| CreatedFleet::Existing(Box::new(fleet))).map_err(CreateError::from));
        }
        let inserted = sqlx::query(
            "INSERT INTO fleets (org_id, id, phase, body, template, idem_key, idem_digest, created_ms) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (org_id, id) DO NOTHING",
        )
        .bind(&org_id)
        .bind(&id)
        .bind(new.fleet.phase.as_str())
        .bind(row::text(&new.fleet))
        .bind(&new.template)
        .bind(new.idempotency.as_ref().map(|idempotency| &idempotency.key))
        .bind(new.idempotency.as_ref().map(|idempotency| &idempotency.request_digest))
        .bind(new.fleet.created_at.as_millis())
        .execute(&mut *self.connection)
        .await?;
        if inserted.rows_affected() == 0 {
            return Ok(Err(StoreError::Taken(id).into()));
        }
        for (first, tasks) in (0..).step_by(ROWS).zip(new.tasks.chunks(ROWS)) {
            sqlx::query(
                "INSERT INTO fleet_members (org_id, fleet_id, idx, task) SELECT ?, ?, ? + key, value FROM json_each(?)",
            )
            .bind(&org_id)
            .bind(&id)
            .bind(i64::from(first))
            .bind(row::text(&tasks))
            .execute(&mut *self.connection)
            .await?;
        }
        self.seal(org, &new.drafts);
        Ok(Ok(CreatedFleet::New))
    }

    /// The session of a member: it must wait for one, and has it with the session's own row.
    pub(super) async fn create_member(
        &mut self,
        org: OrgId,
        seat: Seat,
        new: &NewSession,
    ) -> Result<Result<Vec<AuditEvent>, MemberError>, sqlx::Error> {
        let (org_id, id) = (org.to_string(), seat.fleet.to_string());
        let waits = sqlx::query(
            "SELECT 1 FROM fleet_members WHERE org_id = ? AND fleet_id = ? AND idx = ? \
             AND session_id IS NULL AND ended_by IS NULL AND fault IS NULL",
        )
        .bind(&org_id)
        .bind(&id)
        .bind(i64::from(seat.index))
        .fetch_optional(&mut *self.connection)
        .await?;
        if waits.is_none() {
            return Ok(Err(MemberError::NotQueued));
        }
        let events = match self.create(org, new).await? {
            Ok(Created::New(events)) => events,
            // It has no idempotency key, so that no other can have made it.
            Ok(Created::Existing(session)) => return Ok(Err(StoreError::Taken(session.id.to_string()).into())),
            Err(refused) => return Ok(Err(refused.store().into())),
        };
        sqlx::query("UPDATE fleet_members SET session_id = ? WHERE org_id = ? AND fleet_id = ? AND idx = ?")
            .bind(new.session.id.to_string())
            .bind(&org_id)
            .bind(&id)
            .bind(i64::from(seat.index))
            .execute(&mut *self.connection)
            .await?;
        Ok(Ok(events))
    }

    pub(super) async fn change_fleet(
        &mut self,
        org: OrgId,
        change: &FleetChange,
    ) -> Result<Result<(), StoreError>, sqlx::Error> {
        match change {
            FleetChange::EndedBy { id, reason } => self.fleet_ended_by(org, *id, *reason).await.map(Ok),
            FleetChange::Fault { seat, fault } => self.member_fault(org, *seat, fault).await.map(Ok),
            FleetChange::Finish { fleet, draft } => {
                if fleet.org_id != org {
                    return Ok(Err(StoreError::ForeignRecord));
                }
                if let Err(refused) = sealable(std::slice::from_ref(draft)) {
                    return Ok(Err(refused.store()));
                }
                if !self.chain(org).await? {
                    return Ok(Err(Refused::UnknownOrg.store()));
                }
                if self.write_fleet(org, fleet).await? {
                    self.seal(org, std::slice::from_ref(draft));
                }
                Ok(Ok(()))
            }
        }
    }

    async fn fleet_ended_by(&mut self, org: OrgId, id: FleetId, reason: FleetEndReason) -> Result<(), sqlx::Error> {
        let (org_id, id) = (org.to_string(), id.to_string());
        // The first reason stays.
        let ended = sqlx::query(
            "UPDATE fleets SET body = json_set(body, '$.reason', ?) \
             WHERE org_id = ? AND id = ? AND phase IN ('pending', 'running') AND body ->> '$.reason' IS NULL",
        )
        .bind(reason.as_str())
        .bind(&org_id)
        .bind(&id)
        .execute(&mut *self.connection)
        .await?;
        if ended.rows_affected() == 0 {
            return Ok(());
        }
        sqlx::query(
            "UPDATE fleet_members SET ended_by = ? WHERE org_id = ? AND fleet_id = ? AND fault IS NULL \
             AND (session_id IS NULL OR EXISTS (SELECT 1 FROM sessions s WHERE s.org_id = fleet_members.org_id \
                 AND s.id = fleet_members.session_id AND s.phase IN ('pending', 'running', 'paused')))",
        )
        .bind(reason.as_str())
        .bind(&org_id)
        .bind(&id)
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    async fn member_fault(&mut self, org: OrgId, seat: Seat, fault: &SessionFault) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE fleet_members SET fault = ? WHERE org_id = ? AND fleet_id = ? AND idx = ? \
             AND ended_by IS NULL AND fault IS NULL",
        )
        .bind(row::text(fault))
        .bind(org.to_string())
        .bind(seat.fleet.to_string())
        .bind(i64::from(seat.index))
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// False when it had finished before.
    async fn write_fleet(&mut self, org: OrgId, fleet: &Fleet) -> Result<bool, sqlx::Error> {
        let updated = sqlx::query(
            "UPDATE fleets SET phase = ?, body = ? WHERE org_id = ? AND id = ? AND phase IN ('pending', 'running')",
        )
        .bind(fleet.phase.as_str())
        .bind(row::text(fleet))
        .bind(org.to_string())
        .bind(fleet.id.to_string())
        .execute(&mut *self.connection)
        .await?;
        Ok(updated.rows_affected() > 0)
    }

    /// Forgets the idempotency keys of fleets older than this; gives how many.
    pub(super) async fn forget_fleets(&mut self, before: Timestamp) -> Result<u64, sqlx::Error> {
        let forgotten = sqlx::query(
            "UPDATE fleets SET idem_key = NULL, idem_digest = NULL WHERE idem_key IS NOT NULL AND created_ms < ?",
        )
        .bind(before.as_millis())
        .execute(&mut *self.connection)
        .await?;
        Ok(forgotten.rows_affected())
    }
}
