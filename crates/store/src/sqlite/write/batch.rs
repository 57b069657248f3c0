//! One transaction: each operation checks first and writes after, so that one that is refused leaves nothing behind.

mod bindings;
mod fleets;
mod triggers;
mod turns;
mod webhooks;

use std::collections::HashMap;

use model::audit::{Draft, Head, Unsealable, canonical_event};
use sqlx::{Row as _, SqliteConnection};
use wire::{AuditEvent, FiringOutcome, KeyId, OrgId, Phase, SessionId, Timestamp, TriggerRun};

pub(crate) use self::webhooks::DeliveryChange;
use super::Operation;
use crate::{
    BindingError, Claimed, CreateError, Created, CreatedFleet, KeyRecord, MemberError, NewSession, NotFired, Old, Org,
    StoreError, TriggerError, Update, UpdateError,
    sqlite::{read, row},
};

/// What became of an operation, before anybody is told.
pub(super) enum Outcome {
    Created(Result<Created, Refused>),
    Events(Result<Vec<AuditEvent>, Refused>),
    Done(Result<(), Refused>),
    Revoked(Result<bool, Refused>),
    Binding(Result<(), BindingError>),
    Fleet(Result<CreatedFleet, CreateError>),
    Member(Result<Vec<AuditEvent>, MemberError>),
    FleetChanged(Result<(), StoreError>),
    Org(Result<Org, Refused>),
    Count(u64),
    Claimed(Vec<Claimed>),
    Changed(Result<bool, Refused>),
    Trigger(Result<(), TriggerError>),
    Run(Result<TriggerRun, NotFired>),
}

/// Why an operation was not carried out, though the database is well.
pub(super) enum Refused {
    UnknownOrg,
    IdempotencyConflict,
    NotLive,
    Foreign,
    Taken(String),
    Unsealable(Unsealable),
    Corrupt(serde_json::Error),
    NotFired(NotFired),
}

pub(super) struct Batch<'c> {
    connection: &'c mut SqliteConnection,
    /// Ends of the chains that this transaction has touched.
    chains: HashMap<OrgId, Head>,
    /// Entries to insert: org, position, session, hash, canonical text.
    sealed: Vec<(String, u64, Option<String>, String, String)>,
}

impl<'c> Batch<'c> {
    /// For a connection on which a transaction has begun.
    pub(super) fn new(connection: &'c mut SqliteConnection) -> Self {
        Self { connection, chains: HashMap::new(), sealed: Vec::new() }
    }

    pub(super) async fn carry_out(&mut self, operation: &Operation) -> Result<Outcome, sqlx::Error> {
        Ok(match operation {
            Operation::Create { org, new, .. } => Outcome::Created(self.create(*org, new).await?),
            Operation::Update { org, update, .. } => Outcome::Events(self.update(*org, update).await?),
            Operation::Turn { org, record, .. } => {
                Outcome::Events(self.turn(*org, &record.turn, &record.drafts).await?)
            }
            Operation::Append { org, drafts, .. } => Outcome::Events(self.append(*org, drafts).await?),
            Operation::CreateKey { org, key, draft, .. } => Outcome::Done(self.create_key(*org, key, draft).await?),
            Operation::RevokeKey { org, id, draft, .. } => Outcome::Revoked(self.revoke_key(*org, *id, draft).await?),
            Operation::Binding { org, change, .. } => Outcome::Binding(self.binding(*org, change).await?),
            Operation::CreateFleet { org, new, .. } => Outcome::Fleet(self.create_fleet(*org, new).await?),
            Operation::CreateMember { org, seat, new, .. } => {
                Outcome::Member(self.create_member(*org, *seat, new).await?)
            }
            Operation::Fleet { org, change, .. } => Outcome::FleetChanged(self.change_fleet(*org, change).await?),
            Operation::EnsureOrg { org, .. } => Outcome::Org(self.ensure_org(org).await?),
            Operation::Forget { old, .. } => Outcome::Count(self.forget(*old).await?),
            Operation::ClaimDeliveries { claim, .. } => Outcome::Claimed(self.claim(claim).await?),
            Operation::Delivery { org, change, .. } => Outcome::Changed(self.delivery(*org, change).await?),
            Operation::Trigger { org, change, .. } => Outcome::Trigger(self.trigger(*org, change).await?),
            Operation::Unstarted { org, unstarted, .. } => Outcome::Run(self.unstarted(*org, unstarted).await?),
            Operation::WebhookSecret { org, record, drafts, .. } => {
                Outcome::Changed(self.webhook_secret(*org, record, drafts).await?)
            }
            Operation::ForgetArtifacts { org, session, .. } => {
                let forgotten = sqlx::query("DELETE FROM artifacts WHERE org_id = ? AND session_id = ?")
                    .bind(org.to_string())
                    .bind(session.to_string())
                    .execute(&mut *self.connection)
                    .await?;
                Outcome::Count(forgotten.rows_affected())
            }
        })
    }

    async fn forget(&mut self, old: Old) -> Result<u64, sqlx::Error> {
        let keys = sqlx::query("DELETE FROM idempotency WHERE created_ms < ?")
            .bind(old.keys.as_millis())
            .execute(&mut *self.connection)
            .await?;
        let deliveries = sqlx::query(
            "DELETE FROM deliveries WHERE seq IN \
             (SELECT seq FROM deliveries INDEXED BY deliveries_over WHERE finished_ms < ? LIMIT 1000)",
        )
        .bind(old.deliveries.as_millis())
        .execute(&mut *self.connection)
        .await?;
        Ok(keys.rows_affected() + deliveries.rows_affected() + self.forget_fleets(old.keys).await?)
    }

    async fn append(&mut self, org: OrgId, drafts: &[Draft]) -> Result<Result<Vec<AuditEvent>, Refused>, sqlx::Error> {
        if !self.chain(org).await? {
            return Ok(Err(Refused::UnknownOrg));
        }
        Ok(sealable(drafts).map(|()| self.seal(org, drafts)))
    }

    async fn create(&mut self, org: OrgId, new: &NewSession) -> Result<Result<Created, Refused>, sqlx::Error> {
        if new.session.org_id != org {
            return Ok(Err(Refused::Foreign));
        }
        if !self.chain(org).await? {
            return Ok(Err(Refused::UnknownOrg));
        }
        if let Err(refused) = sealable(&new.drafts) {
            return Ok(Err(refused));
        }
        let (org_id, id) = (org.to_string(), new.session.id.to_string());
        if let Some(idempotency) = &new.idempotency
            && let Some(earlier) = read::by_key(&mut *self.connection, org, &idempotency.key).await?
        {
            if earlier.try_get::<String, _>(1)? != idempotency.request_digest {
                return Ok(Err(Refused::IdempotencyConflict));
            }
            let session = serde_json::from_str(&earlier.try_get::<String, _>(0)?);
            return Ok(session.map(|session| Created::Existing(Box::new(session))).map_err(Refused::Corrupt));
        }
        if let Some(firing) = &new.firing
            && let Err(refused) = self.may_fire(org, firing).await?
        {
            return Ok(Err(Refused::NotFired(refused)));
        }
        let inserted = sqlx::query(
            "INSERT INTO sessions (org_id, id, phase, body, webhook_url) VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (org_id, id) DO NOTHING",
        )
        .bind(&org_id)
        .bind(&id)
        .bind(new.session.phase.as_str())
        .bind(row::text(&new.session))
        .bind(new.webhook_url.as_deref())
        .execute(&mut *self.connection)
        .await?;
        if inserted.rows_affected() == 0 {
            return Ok(Err(Refused::Taken(id)));
        }
        if let Some(idempotency) = &new.idempotency {
            sqlx::query("INSERT INTO idempotency (org_id, key, digest, session_id, created_ms) VALUES (?, ?, ?, ?, ?)")
                .bind(&org_id)
                .bind(&idempotency.key)
                .bind(&idempotency.request_digest)
                .bind(&id)
                .bind(new.session.created_at.as_millis())
                .execute(&mut *self.connection)
                .await?;
        }
        if let Some(firing) = &new.firing {
            self.fire(org, firing, FiringOutcome::Started, (Some(new.session.id), None, None)).await?;
        }
        Ok(Ok(Created::New(self.seal(org, &new.drafts))))
    }

    async fn update(&mut self, org: OrgId, update: &Update) -> Result<Result<Vec<AuditEvent>, Refused>, sqlx::Error> {
        if update.session.org_id != org {
            return Ok(Err(Refused::Foreign));
        }
        if !self.chain(org).await? {
            return Ok(Err(Refused::NotLive));
        }
        if let Err(refused) = sealable(&update.drafts) {
            return Ok(Err(refused));
        }
        let org_id = org.to_string();
        let updated = sqlx::query(
            "UPDATE sessions SET phase = ?, body = ?, sandbox = coalesce(?, sandbox), result = coalesce(?, result) \
             WHERE org_id = ? AND id = ? AND phase <> ?",
        )
        .bind(update.session.phase.as_str())
        .bind(row::text(&update.session))
        .bind(update.sandbox.as_deref())
        .bind(update.result.as_ref().map(row::text))
        .bind(&org_id)
        .bind(update.session.id.to_string())
        .bind(Phase::TornDown.as_str())
        .execute(&mut *self.connection)
        .await?;
        if updated.rows_affected() == 0 {
            return Ok(Err(Refused::NotLive));
        }
        for message in &update.outbox {
            self.post(org, message).await?;
        }
        if !update.artifacts.is_empty() {
            // One statement for all of them, as with the log. A path that is there twice is the caller's mistake.
            let rows: Vec<_> = update
                .artifacts
                .iter()
                .enumerate()
                .map(|(number, artifact)| (&artifact.path, number, artifact.size, &artifact.sha256))
                .collect();
            sqlx::query(
                "INSERT INTO artifacts (org_id, session_id, path, number, size, sha256, created_ms) \
                 SELECT ?1, ?2, value ->> 0, value ->> 1, value ->> 2, value ->> 3, ?3 FROM json_each(?4) \
                 WHERE true ON CONFLICT DO NOTHING",
            )
            .bind(&org_id)
            .bind(update.session.id.to_string())
            .bind(update.session.finished_at.map_or(0, Timestamp::as_millis))
            .bind(row::text(&rows))
            .execute(&mut *self.connection)
            .await?;
        }
        Ok(Ok(self.seal(org, &update.drafts)))
    }

    async fn create_key(
        &mut self,
        org: OrgId,
        key: &KeyRecord,
        draft: &Draft,
    ) -> Result<Result<(), Refused>, sqlx::Error> {
        if key.org != org {
            return Ok(Err(Refused::Foreign));
        }
        if !self.chain(org).await? {
            return Ok(Err(Refused::UnknownOrg));
        }
        if let Err(refused) = sealable(std::slice::from_ref(draft)) {
            return Ok(Err(refused));
        }
        let inserted = sqlx::query(
            "INSERT INTO keys (id, org_id, name, role, scopes, secret_hash, created_ms, revoked_ms) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
        )
        .bind(key.id.to_string())
        .bind(org.to_string())
        .bind(&key.name)
        .bind(key.role.as_str())
        .bind(key.scopes.as_ref().map(row::text))
        .bind(&key.secret_hash)
        .bind(key.created_at.as_millis())
        .bind(key.revoked_at.map(Timestamp::as_millis))
        .execute(&mut *self.connection)
        .await?;
        if inserted.rows_affected() == 0 {
            return Ok(Err(Refused::Taken(key.id.to_string())));
        }
        self.seal(org, std::slice::from_ref(draft));
        Ok(Ok(()))
    }

    async fn revoke_key(&mut self, org: OrgId, id: KeyId, draft: &Draft) -> Result<Result<bool, Refused>, sqlx::Error> {
        if !self.chain(org).await? {
            return Ok(Ok(false));
        }
        if let Err(refused) = sealable(std::slice::from_ref(draft)) {
            return Ok(Err(refused));
        }
        let revoked = sqlx::query("UPDATE keys SET revoked_ms = ? WHERE id = ? AND org_id = ? AND revoked_ms IS NULL")
            .bind(draft.ts.as_millis())
            .bind(id.to_string())
            .bind(org.to_string())
            .execute(&mut *self.connection)
            .await?;
        let revoked = revoked.rows_affected() > 0;
        if revoked {
            self.seal(org, std::slice::from_ref(draft));
        }
        Ok(Ok(revoked))
    }

    async fn ensure_org(&mut self, org: &Org) -> Result<Result<Org, Refused>, sqlx::Error> {
        let head = Head::default();
        sqlx::query("INSERT INTO orgs (id, name, head_seq, head_hash) VALUES (?, ?, 0, ?) ON CONFLICT DO NOTHING")
            .bind(org.id.to_string())
            .bind(&org.name)
            .bind(&head.hash)
            .execute(&mut *self.connection)
            .await?;
        let found = sqlx::query("SELECT id FROM orgs WHERE name = ?")
            .bind(&org.name)
            .fetch_optional(&mut *self.connection)
            .await?;
        Ok(match found {
            Some(found) => Ok(Org { id: row::id(&found, 0)?, name: org.name.clone() }),
            // Not made, and not there: its id is another's.
            None => Err(Refused::Taken(org.id.to_string())),
        })
    }

    /// Makes sure that the end of the org's chain is known; false when there is no such org.
    async fn chain(&mut self, org: OrgId) -> Result<bool, sqlx::Error> {
        if self.chains.contains_key(&org) {
            return Ok(true);
        }
        let head = sqlx::query("SELECT head_seq, head_hash FROM orgs WHERE id = ?")
            .bind(org.to_string())
            .fetch_optional(&mut *self.connection)
            .await?;
        let Some(head) = head else { return Ok(false) };
        self.chains.insert(org, row::head(&head)?);
        Ok(true)
    }

    /// Gives drafts their places. The org's chain is known, and the drafts are [`sealable`].
    fn seal(&mut self, org: OrgId, drafts: &[Draft]) -> Vec<AuditEvent> {
        let head = self.chains.get_mut(&org).expect("looked up by `chain` before");
        let mut events = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let event = head.seal(org, draft.clone());
            self.sealed.push((
                org.to_string(),
                event.seq,
                event.session_id.map(|id| id.to_string()),
                event.hash.clone(),
                canonical_event(&event),
            ));
            events.push(event);
        }
        events
    }

    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        if !self.sealed.is_empty() {
            // One statement for all of them: a statement costs more than a row.
            sqlx::query(
                "INSERT INTO audit (org_id, seq, session_id, hash, canonical) \
                 SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?)",
            )
            .bind(row::text(&self.sealed))
            .execute(&mut *self.connection)
            .await?;
            for (org, head) in &self.chains {
                sqlx::query("UPDATE orgs SET head_seq = ?, head_hash = ? WHERE id = ?")
                    .bind(i64::try_from(head.seq).unwrap_or(i64::MAX))
                    .bind(&head.hash)
                    .bind(org.to_string())
                    .execute(&mut *self.connection)
                    .await?;
            }
        }
        sqlx::query("COMMIT").execute(&mut *self.connection).await.map(drop)
    }
}

impl Refused {
    /// Why a session, or a turn of it, was not updated.
    pub(super) fn update(self, id: SessionId) -> UpdateError {
        match self {
            Self::NotLive => UpdateError::NotLive(id),
            other @ (Self::UnknownOrg
            | Self::IdempotencyConflict
            | Self::Foreign
            | Self::Taken(_)
            | Self::Unsealable(_)
            | Self::NotFired(_)
            | Self::Corrupt(_)) => other.store().into(),
        }
    }

    pub(super) fn store(self) -> StoreError {
        match self {
            Self::NotFired(NotFired::Store(error)) => error,
            Self::UnknownOrg
            | Self::IdempotencyConflict
            | Self::NotLive
            | Self::NotFired(NotFired::Gone | NotFired::Taken | NotFired::Overlaps) => StoreError::UnknownOrg,
            Self::Foreign => StoreError::ForeignRecord,
            Self::Taken(id) => StoreError::Taken(id),
            Self::Unsealable(why) => why.into(),
            Self::Corrupt(source) => StoreError::Corrupt { table: "sessions", source },
        }
    }
}

fn sealable(drafts: &[Draft]) -> Result<(), Refused> {
    drafts.iter().try_for_each(Draft::check).map_err(Refused::Unsealable)
}
