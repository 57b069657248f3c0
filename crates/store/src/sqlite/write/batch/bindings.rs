//! Changes of bindings.

use sqlx::Row as _;
use wire::{BindingId, OrgId};

use super::{Batch, sealable};
use crate::{BindingChange, BindingError, BindingRecord, StoreError, sqlite::row};

impl Batch<'_> {
    /// Carries out a change, or says why not.
    pub(super) async fn binding(
        &mut self,
        org: OrgId,
        change: &BindingChange,
    ) -> Result<Result<(), BindingError>, sqlx::Error> {
        let drafts = match change {
            BindingChange::Create { draft, .. } | BindingChange::Delete { draft, .. } => std::slice::from_ref(draft),
            BindingChange::Update { drafts, .. } => drafts.as_slice(),
        };
        if let Err(refused) = sealable(drafts) {
            return Ok(Err(refused.store().into()));
        }
        let known = self.chain(org).await?;
        let changed = match change {
            BindingChange::Create { .. } if !known => Err(StoreError::UnknownOrg.into()),
            BindingChange::Update { .. } | BindingChange::Delete { .. } if !known => Err(BindingError::NotFound),
            BindingChange::Create { record, .. } | BindingChange::Update { record, .. }
                if record.binding.org_id != org =>
            {
                Err(StoreError::ForeignRecord.into())
            }
            BindingChange::Create { record, .. } => self.create_binding(org, record).await?,
            BindingChange::Update { record, .. } => self.update_binding(org, record).await?,
            BindingChange::Delete { id, .. } => self.delete_binding(org, *id).await?,
        };
        Ok(changed.map(|()| drop(self.seal(org, drafts))))
    }

    async fn create_binding(
        &mut self,
        org: OrgId,
        record: &BindingRecord,
    ) -> Result<Result<(), BindingError>, sqlx::Error> {
        let (org_id, id) = (org.to_string(), record.binding.id.to_string());
        let inserted = sqlx::query(
            "INSERT INTO bindings (org_id, id, name, revision, body, sealed) VALUES (?, ?, ?, ?, ?, ?) \
             ON CONFLICT DO NOTHING",
        )
        .bind(&org_id)
        .bind(&id)
        .bind(&record.binding.spec.name)
        .bind(revision(record.revision))
        .bind(row::text(&record.binding))
        .bind(&record.sealed)
        .execute(&mut *self.connection)
        .await?;
        if inserted.rows_affected() > 0 {
            return Ok(Ok(()));
        }
        let same_id = sqlx::query("SELECT 1 FROM bindings WHERE org_id = ? AND id = ?")
            .bind(&org_id)
            .bind(&id)
            .fetch_optional(&mut *self.connection)
            .await?;
        Ok(Err(if same_id.is_some() { StoreError::Taken(id).into() } else { BindingError::NameTaken }))
    }

    async fn update_binding(
        &mut self,
        org: OrgId,
        record: &BindingRecord,
    ) -> Result<Result<(), BindingError>, sqlx::Error> {
        let (org_id, id) = (org.to_string(), record.binding.id.to_string());
        let found = sqlx::query("SELECT revision, name FROM bindings WHERE org_id = ? AND id = ?")
            .bind(&org_id)
            .bind(&id)
            .fetch_optional(&mut *self.connection)
            .await?;
        let Some(found) = found else { return Ok(Err(BindingError::NotFound)) };
        let stands: (i64, String) = (found.try_get(0)?, found.try_get(1)?);
        if stands != (revision(record.revision), record.binding.spec.name.clone()) {
            return Ok(Err(BindingError::Stale));
        }
        sqlx::query("UPDATE bindings SET revision = revision + 1, body = ?, sealed = ? WHERE org_id = ? AND id = ?")
            .bind(row::text(&record.binding))
            .bind(&record.sealed)
            .bind(&org_id)
            .bind(&id)
            .execute(&mut *self.connection)
            .await?;
        Ok(Ok(()))
    }

    async fn delete_binding(&mut self, org: OrgId, id: BindingId) -> Result<Result<(), BindingError>, sqlx::Error> {
        let deleted = sqlx::query("DELETE FROM bindings WHERE org_id = ? AND id = ?")
            .bind(org.to_string())
            .bind(id.to_string())
            .execute(&mut *self.connection)
            .await?;
        Ok(if deleted.rows_affected() > 0 { Ok(()) } else { Err(BindingError::NotFound) })
    }
}

/// Of use in a column; nobody changes a binding so often.
fn revision(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}
