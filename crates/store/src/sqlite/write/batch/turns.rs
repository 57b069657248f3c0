//! Recording turns.

use model::audit::Draft;
use wire::{AuditEvent, OrgId, Phase, Turn};

use super::{Batch, Refused, sealable};
use crate::sqlite::row;

impl Batch<'_> {
    /// Records a turn, new or changed, of a session that is not torn down; one that has ended is not changed.
    pub(super) async fn turn(
        &mut self,
        org: OrgId,
        turn: &Turn,
        drafts: &[Draft],
    ) -> Result<Result<Vec<AuditEvent>, Refused>, sqlx::Error> {
        if !self.chain(org).await? {
            return Ok(Err(Refused::NotLive));
        }
        if let Err(refused) = sealable(drafts) {
            return Ok(Err(refused));
        }
        let written = sqlx::query(
            "INSERT INTO turns (org_id, session_id, number, ended, body) SELECT ?1, ?2, ?3, ?4, ?5 \
             WHERE EXISTS (SELECT 1 FROM sessions WHERE org_id = ?1 AND id = ?2 AND phase <> ?6) \
             ON CONFLICT (org_id, session_id, number) DO UPDATE SET ended = excluded.ended, body = excluded.body \
             WHERE NOT turns.ended",
        )
        .bind(org.to_string())
        .bind(turn.session_id.to_string())
        .bind(turn.number)
        .bind(turn.status.has_ended())
        .bind(row::text(turn))
        .bind(Phase::TornDown.as_str())
        .execute(&mut *self.connection)
        .await?;
        if written.rows_affected() == 0 {
            return Ok(Err(Refused::NotLive));
        }
        Ok(Ok(self.seal(org, drafts)))
    }
}
