//! Messages: written, taken, settled; and the secrets that they are signed with.

use sqlx::Row as _;
use wire::{DeliveryId, DeliveryStatus, OrgId, Timestamp};

use super::{Batch, Refused, sealable};
use crate::{
    Claim, Claimed, OutboxMessage, Settled, Settlement, WebhookSecretRecord,
    sqlite::{read, row},
};

/// A change of a delivery.
pub(crate) enum DeliveryChange {
    Retry { id: DeliveryId, due: Timestamp, until: Timestamp },
    Settle(Settlement),
}

impl Batch<'_> {
    pub(super) async fn post(&mut self, org: OrgId, message: &OutboxMessage) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO deliveries (org_id, id, session_id, event, url, payload, created_ms, status, attempts, tries, \
             until_ms, due_ms) VALUES (?, ?, ?, ?, ?, ?, ?7, 'pending', 0, 0, ?8, ?7)",
        )
        .bind(org.to_string())
        .bind(message.id.to_string())
        .bind(message.session.to_string())
        .bind(message.kind.as_str())
        .bind(&message.url)
        .bind(&message.payload)
        .bind(message.created_at.as_millis())
        .bind(message.until.as_millis())
        .execute(&mut *self.connection)
        .await
        .map(drop)
    }

    pub(super) async fn claim(&mut self, claim: &Claim) -> Result<Vec<Claimed>, sqlx::Error> {
        // Of each org its longest due ones, as many as it may have under way together with those that are taken already.
        let rows = sqlx::query(
            "WITH taken AS ( \
                 SELECT org_id, count(*) AS n FROM deliveries WHERE status = 'pending' AND leased_until_ms > ?1 GROUP BY org_id \
             ), due AS ( \
                 SELECT d.seq, d.org_id, d.due_ms, row_number() OVER (PARTITION BY d.org_id ORDER BY d.due_ms, d.seq) AS place \
                 FROM deliveries d \
                 WHERE d.status = 'pending' AND d.due_ms <= ?1 AND (d.leased_until_ms IS NULL OR d.leased_until_ms <= ?1) \
                 AND NOT EXISTS (SELECT 1 FROM deliveries e WHERE e.status = 'pending' AND e.org_id = d.org_id \
                     AND e.session_id = d.session_id AND e.seq < d.seq) \
             ) \
             UPDATE deliveries SET lease = ?2, leased_until_ms = ?3 WHERE seq IN ( \
                 SELECT due.seq FROM due LEFT JOIN taken ON taken.org_id = due.org_id \
                 WHERE due.place + coalesce(taken.n, 0) <= ?4 ORDER BY due.due_ms, due.seq LIMIT ?5 \
             ) RETURNING org_id, id, session_id, url, payload, attempts, tries, until_ms",
        )
        .bind(claim.now.as_millis())
        .bind(&claim.lease)
        .bind(claim.until.as_millis())
        .bind(i64::from(claim.per_org))
        .bind(i64::from(claim.limit))
        .fetch_all(&mut *self.connection)
        .await?;
        let count = |found, column| Ok::<_, sqlx::Error>(u32::try_from(get(found, column)?).unwrap_or(u32::MAX));
        rows.iter()
            .map(|found| {
                Ok(Claimed {
                    org: row::id(found, 0)?,
                    id: row::id(found, 1)?,
                    session: row::id(found, 2)?,
                    url: found.try_get(3)?,
                    payload: found.try_get(4)?,
                    attempts: count(found, 5)?,
                    tries: count(found, 6)?,
                    until: Timestamp::from_millis(get(found, 7)?),
                })
            })
            .collect()
    }

    pub(super) async fn delivery(
        &mut self,
        org: OrgId,
        change: &DeliveryChange,
    ) -> Result<Result<bool, Refused>, sqlx::Error> {
        match change {
            DeliveryChange::Retry { id, due, until } => {
                let changed = sqlx::query(
                    "UPDATE deliveries SET status = 'pending', tries = 0, due_ms = ?, until_ms = ?, finished_ms = NULL \
                     WHERE org_id = ? AND id = ?",
                )
                .bind(due.as_millis())
                .bind(until.as_millis())
                .bind(org.to_string())
                .bind(id.to_string())
                .execute(&mut *self.connection)
                .await?;
                Ok(Ok(changed.rows_affected() > 0))
            }
            DeliveryChange::Settle(settlement) => self.settle(org, settlement).await,
        }
    }

    async fn settle(&mut self, org: OrgId, settlement: &Settlement) -> Result<Result<bool, Refused>, sqlx::Error> {
        if let Err(refused) = sealable(&settlement.drafts) {
            return Ok(Err(refused));
        }
        if !self.chain(org).await? {
            return Ok(Ok(false));
        }
        let now = settlement.now.as_millis();
        let (status, due, finished) = match settlement.settled {
            Settled::Delivered => (DeliveryStatus::Delivered, now, Some(now)),
            Settled::Failed => (DeliveryStatus::Failed, now, Some(now)),
            Settled::Again(due) => (DeliveryStatus::Pending, due.as_millis(), None),
        };
        let settled = sqlx::query(
            "UPDATE deliveries SET status = ?, due_ms = ?, finished_ms = ?, last = ?, attempts = attempts + 1, \
             tries = tries + 1, lease = NULL, leased_until_ms = NULL \
             WHERE org_id = ? AND id = ? AND lease = ? AND status = 'pending'",
        )
        .bind(status.as_str())
        .bind(due)
        .bind(finished)
        .bind(row::text(&settlement.attempt))
        .bind(org.to_string())
        .bind(settlement.id.to_string())
        .bind(&settlement.lease)
        .execute(&mut *self.connection)
        .await?;
        let settled = settled.rows_affected() > 0;
        if settled {
            self.seal(org, &settlement.drafts);
        }
        Ok(Ok(settled))
    }

    pub(super) async fn webhook_secret(
        &mut self,
        org: OrgId,
        record: &WebhookSecretRecord,
        drafts: &[model::audit::Draft],
    ) -> Result<Result<bool, Refused>, sqlx::Error> {
        if let Err(refused) = sealable(drafts) {
            return Ok(Err(refused));
        }
        if !self.chain(org).await? {
            return Ok(Err(Refused::UnknownOrg));
        }
        let stands = read::webhooks::secret(&mut *self.connection, org).await?.map_or(0, |record| record.version);
        if record.version != stands + 1 {
            return Ok(Ok(false));
        }
        let (previous, until) = record.previous.clone().unzip();
        sqlx::query(
            "INSERT INTO webhook_secrets (org_id, version, sealed, created_ms, previous, previous_until_ms) \
             VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (org_id) DO UPDATE SET version = excluded.version, \
             sealed = excluded.sealed, created_ms = excluded.created_ms, previous = excluded.previous, \
             previous_until_ms = excluded.previous_until_ms",
        )
        .bind(org.to_string())
        .bind(i64::try_from(record.version).unwrap_or(i64::MAX))
        .bind(&record.sealed)
        .bind(record.created_at.as_millis())
        .bind(previous)
        .bind(until.map(Timestamp::as_millis))
        .execute(&mut *self.connection)
        .await?;
        self.seal(org, drafts);
        Ok(Ok(true))
    }
}

fn get(found: &sqlx::sqlite::SqliteRow, column: usize) -> Result<i64, sqlx::Error> {
    found.try_get(column)
}
