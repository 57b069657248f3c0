//! Changes of bindings.

use sqlx::Row as _;
use wire::{BindingId, OrgId};

use super::{Batch, Refused, sealable};
use crate::{BindingChange, BindingRecord, sqlite::row};

impl Batch<'_> {
    /// Carries out a change, or says why not.
    pub(super) async fn binding(
        &mut self,
        org: OrgId,
        change: &BindingChange,
    ) -> Result<Result<(), Refused>, sqlx::Error> {
        let drafts = match change {
            BindingChange::Create { draft, .. } | BindingChange::Delete { draft, .. } => std::slice::from_ref(draft),
            BindingChange::Update { drafts, .. } => drafts.as_slice(),
        };
        if let Err(refused) = sealable(drafts) {
            return Ok(Err(refused));
        }
        let known = self.chain(org).await?;
        let changed = match change {
            BindingChange::Create { .. } if !known => Err(Refused::UnknownOrg),
            BindingChange::Update { .. } | BindingChange::Delete { .. } if !known => Err(Refused::NoBinding),
            BindingChange::Create { record, .. } | BindingChange::Update { record, .. }
                if record.binding.org_id != org =>
            {
                Err(Refused::Foreign)
            }
            BindingChange::Create { record, .. } => self.create_binding(org, record).await?,
            BindingChange::Update { record, .. } => self.update_binding(org, record).await?,
            BindingChange::Delete { id, .. } => self.delete_binding(org, *id).await?,
        };
        Ok(changed.map(|()| drop(self.seal(org, drafts))))
    }

    async fn create_binding(&mut self, org: OrgId, record: &BindingRecord) -> Result<Result<(), Refused>, sqlx::Error> {
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
        Ok(Err(if same_id.is_some() { Refused::Taken(id) } else { Refused::NameTaken }))
    }

    async fn update_binding(&mut self, org: OrgId, record: &BindingRecord) -> Result<Result<(), Refused>, sqlx::Error> {
        let (org_id, id) = (org.to_string(), record.binding.id.to_string());
        let found = sqlx::query("SELECT revision, name FROM bindings WHERE org_id = ? AND id = ?")
            .bind(&org_id)
            .bind(&id)
            .fetch_optional(&mut *self.connection)
            .await?;
        let Some(found) = found else { return Ok(Err(Refused::NoBinding)) };
        let stands: (i64, String) = (found.try_get(0)?, found.try_get(1)?);
        if stands != (revision(record.revision), record.binding.spec.name.clone()) {
            return Ok(Err(Refused::Stale));
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

    async fn delete_binding(&mut self, org: OrgId, id: BindingId) -> Result<Result<(), Refused>, sqlx::Error> {
        let deleted = sqlx::query("DELETE FROM bindings WHERE org_id = ? AND id = ?")
            .bind(org.to_string())
            .bind(id.to_string())
            .execute(&mut *self.connection)
            .await?;
        Ok(if deleted.rows_affected() > 0 { Ok(()) } else { Err(Refused::NoBinding) })
    }
}

/// Of use in a column; nobody changes a binding so often.
fn revision(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}
