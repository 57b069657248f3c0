//! The writer: one task, one connection, one transaction for everything that is queued.
//!
//! Each operation checks first and writes after, so that one that is refused (a session that is torn down, an idempotency
//! key in use) leaves nothing behind in the transaction that it shares with others. An error of the database itself ends
//! the whole transaction, and every operation in it is told.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use model::audit::{Draft, Head, Unsealable, canonical_event};
use sqlx::{ConnectOptions as _, Connection as _, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use wire::{AuditEvent, KeyId, OrgId, Phase, Timestamp};

use crate::{CreateError, Created, KeyRecord, NewSession, Org, StoreError, Update, UpdateError, sqlite::row};

/// Operations that wait for the writer; more wait to be queued.
const QUEUE: usize = 1024;
/// Operations in one transaction: bounds how long the first of them waits for the last.
const BATCH: usize = 256;

/// Between two transactions when the next one is due already. SQLite lets other processes on the file (`enclave key`, say)
/// wait by looking again every now and then: without a gap they would never find it free.
const BREATH: Duration = Duration::from_millis(1);

pub(super) type Reply<T> = oneshot::Sender<T>;

/// Something to write.
pub(super) enum Operation {
    Create { org: OrgId, new: Box<NewSession>, reply: Reply<Result<Created, CreateError>> },
    Update { org: OrgId, update: Box<Update>, reply: Reply<Result<Vec<AuditEvent>, UpdateError>> },
    Append { org: OrgId, drafts: Vec<Draft>, reply: Reply<Result<Vec<AuditEvent>, StoreError>> },
    CreateKey { org: OrgId, key: Box<KeyRecord>, draft: Box<Draft>, reply: Reply<Result<(), StoreError>> },
    RevokeKey { org: OrgId, id: KeyId, draft: Box<Draft>, reply: Reply<Result<bool, StoreError>> },
    EnsureOrg { org: Org, reply: Reply<Result<Org, StoreError>> },
    ForgetIdempotency { before: Timestamp, reply: Reply<Result<u64, StoreError>> },
}

/// The way to the writer task.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Mutex<Option<mpsc::Sender<Operation>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Starts on this connection; with `options`, another is made when it fails.
    pub(super) fn start(connection: SqliteConnection, options: SqliteConnectOptions) -> Self {
        let (queue, operations) = mpsc::channel(QUEUE);
        let task = tokio::spawn(run(Some(connection), options, operations));
        Self { queue: Mutex::new(Some(queue)), task: Mutex::new(Some(task)) }
    }

    /// Queues an operation and waits for what became of it. Once it is queued it is carried out, whether or not anybody
    /// still waits.
    pub(super) async fn submit<T>(&self, operation: impl FnOnce(Reply<T>) -> Operation) -> Result<T, StoreError> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        queue.send(operation(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }

    /// Writes out what is queued, and takes nothing more.
    pub(super) async fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the database writer ended badly");
        }
    }
}

async fn run(
    mut connection: Option<SqliteConnection>,
    options: SqliteConnectOptions,
    mut operations: mpsc::Receiver<Operation>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while operations.recv_many(&mut batch, BATCH).await > 0 {
        write(&mut connection, &options, &mut batch).await;
        if !operations.is_empty() {
            tokio::time::sleep(BREATH).await;
        }
    }
    if let Some(connection) = connection
        && let Err(error) = connection.close().await
    {
        tracing::error!(%error, "the database was not closed cleanly");
    }
}

async fn write(connection: &mut Option<SqliteConnection>, options: &SqliteConnectOptions, batch: &mut Vec<Operation>) {
    let attempted = match connection {
        Some(connection) => attempt(connection, batch).await,
        None => match options.connect().await {
            Ok(new) => attempt(connection.insert(new), batch).await,
            Err(error) => Err(error),
        },
    };
    match attempted {
        Ok(answers) => {
            batch.clear();
            for answer in answers {
                answer();
            }
        }
        Err(error) => {
            // After some errors (a full disk is one) SQLite has ended the transaction by itself, and the connection does
            // not know in which state it is. Closing it takes back whatever was begun.
            if let Some(connection) = connection.take()
                && let Err(error) = connection.close().await
            {
                tracing::warn!(%error, "a failed connection was not closed cleanly");
            }
            let error = Arc::new(error);
            tracing::error!(%error, operations = batch.len(), "a transaction failed; nothing of it was written");
            for operation in batch.drain(..) {
                operation.fail(&error);
            }
        }
    }
}

/// Sends an answer; called after the commit.
type Answer = Box<dyn FnOnce() + Send>;

async fn attempt(connection: &mut SqliteConnection, batch: &mut Vec<Operation>) -> Result<Vec<Answer>, sqlx::Error> {
    let transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let mut batch_of = Batch { connection: transaction, chains: HashMap::new(), sealed: Vec::new() };
    let mut outcomes = Vec::with_capacity(batch.len());
    for operation in batch.iter() {
        outcomes.push(batch_of.carry_out(operation).await?);
    }
    batch_of.commit().await?;
    Ok(batch.drain(..).zip(outcomes).map(|(operation, outcome)| operation.answer(outcome)).collect())
}

/// What became of an operation, before anybody is told.
enum Outcome {
    Created(Result<Created, Refused>),
    Events(Result<Vec<AuditEvent>, Refused>),
    Done(Result<(), Refused>),
    Revoked(Result<bool, Refused>),
    Org(Result<Org, Refused>),
    Count(u64),
}

/// Why an operation was not carried out, though the database is well.
enum Refused {
    UnknownOrg,
    IdempotencyConflict,
    NotLive,
    Foreign,
    Taken(String),
    Unsealable(Unsealable),
    Corrupt(serde_json::Error),
}

struct Batch<'c> {
    connection: sqlx::Transaction<'c, sqlx::Sqlite>,
    /// Ends of the chains that this transaction has touched.
    chains: HashMap<OrgId, Head>,
    /// Entries to insert: org, position, session, hash, canonical text.
    sealed: Vec<(String, u64, Option<String>, String, String)>,
}

impl Batch<'_> {
    async fn carry_out(&mut self, operation: &Operation) -> Result<Outcome, sqlx::Error> {
        Ok(match operation {
            Operation::Create { org, new, .. } => Outcome::Created(self.create(*org, new).await?),
            Operation::Update { org, update, .. } => Outcome::Events(self.update(*org, update).await?),
            Operation::Append { org, drafts, .. } => Outcome::Events(self.append(*org, drafts).await?),
            Operation::CreateKey { org, key, draft, .. } => Outcome::Done(self.create_key(*org, key, draft).await?),
            Operation::RevokeKey { org, id, draft, .. } => Outcome::Revoked(self.revoke_key(*org, *id, draft).await?),
            Operation::EnsureOrg { org, .. } => Outcome::Org(self.ensure_org(org).await?),
            Operation::ForgetIdempotency { before, .. } => {
                let forgotten = sqlx::query("DELETE FROM idempotency WHERE created_ms < ?")
                    .bind(before.as_millis())
                    .execute(&mut *self.connection)
                    .await?;
                Outcome::Count(forgotten.rows_affected())
            }
        })
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
        if let Some(idempotency) = &new.idempotency {
            let earlier = sqlx::query(
                "SELECT i.digest, s.body FROM idempotency i JOIN sessions s ON s.org_id = i.org_id AND s.id = i.session_id \
                 WHERE i.org_id = ? AND i.key = ?",
            )
            .bind(&org_id)
            .bind(&idempotency.key)
            .fetch_optional(&mut *self.connection)
            .await?;
            if let Some(earlier) = earlier {
                if earlier.try_get::<String, _>(0)? != idempotency.request_digest {
                    return Ok(Err(Refused::IdempotencyConflict));
                }
                let session = serde_json::from_str(&earlier.try_get::<String, _>(1)?);
                return Ok(session.map(|session| Created::Existing(Box::new(session))).map_err(Refused::Corrupt));
            }
        }
        let inserted = sqlx::query(
            "INSERT INTO sessions (org_id, id, phase, body) VALUES (?, ?, ?, ?) ON CONFLICT (org_id, id) DO NOTHING",
        )
        .bind(&org_id)
        .bind(&id)
        .bind(new.session.phase.as_str())
        .bind(row::text(&new.session))
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
            sqlx::query("INSERT INTO outbox (org_id, topic, payload) VALUES (?, ?, ?)")
                .bind(&org_id)
                .bind(&message.topic)
                .bind(&message.payload)
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

    async fn commit(mut self) -> Result<(), sqlx::Error> {
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
        self.connection.commit().await
    }
}

fn sealable(drafts: &[Draft]) -> Result<(), Refused> {
    drafts.iter().try_for_each(Draft::check).map_err(Refused::Unsealable)
}

impl Operation {
    /// Pairs the outcome with whoever waits for it.
    fn answer(self, outcome: Outcome) -> Answer {
        // A caller that has gone away is no fault: what it asked for was written.
        match (self, outcome) {
            (Self::Create { reply, .. }, Outcome::Created(made)) => Box::new(move || {
                let _ = reply.send(made.map_err(|refused| match refused {
                    Refused::IdempotencyConflict => CreateError::IdempotencyConflict,
                    other @ (Refused::UnknownOrg
                    | Refused::NotLive
                    | Refused::Foreign
                    | Refused::Taken(_)
                    | Refused::Unsealable(_)
                    | Refused::Corrupt(_)) => other.store().into(),
                }));
            }),
            (Self::Update { update, reply, .. }, Outcome::Events(events)) => Box::new(move || {
                let _ = reply.send(events.map_err(|refused| match refused {
                    Refused::NotLive => UpdateError::NotLive(update.session.id),
                    other @ (Refused::UnknownOrg
                    | Refused::IdempotencyConflict
                    | Refused::Foreign
                    | Refused::Taken(_)
                    | Refused::Unsealable(_)
                    | Refused::Corrupt(_)) => other.store().into(),
                }));
            }),
            (Self::Append { reply, .. }, Outcome::Events(events)) => Box::new(move || {
                let _ = reply.send(events.map_err(Refused::store));
            }),
            (Self::CreateKey { reply, .. }, Outcome::Done(done)) => Box::new(move || {
                let _ = reply.send(done.map_err(Refused::store));
            }),
            (Self::RevokeKey { reply, .. }, Outcome::Revoked(revoked)) => Box::new(move || {
                let _ = reply.send(revoked.map_err(Refused::store));
            }),
            (Self::EnsureOrg { reply, .. }, Outcome::Org(org)) => Box::new(move || {
                let _ = reply.send(org.map_err(Refused::store));
            }),
            (Self::ForgetIdempotency { reply, .. }, Outcome::Count(count)) => Box::new(move || {
                let _ = reply.send(Ok(count));
            }),
            (
                Self::Create { .. }
                | Self::Update { .. }
                | Self::Append { .. }
                | Self::CreateKey { .. }
                | Self::RevokeKey { .. }
                | Self::EnsureOrg { .. }
                | Self::ForgetIdempotency { .. },
                Outcome::Created(_)
                | Outcome::Events(_)
                | Outcome::Done(_)
                | Outcome::Revoked(_)
                | Outcome::Org(_)
                | Outcome::Count(_),
            ) => unreachable!("`carry_out` gives each operation its own kind of outcome"),
        }
    }

    fn fail(self, error: &Arc<sqlx::Error>) {
        let error = StoreError::Database(Arc::clone(error));
        match self {
            Self::Create { reply, .. } => drop(reply.send(Err(error.into()))),
            Self::Update { reply, .. } => drop(reply.send(Err(error.into()))),
            Self::Append { reply, .. } => drop(reply.send(Err(error))),
            Self::CreateKey { reply, .. } => drop(reply.send(Err(error))),
            Self::RevokeKey { reply, .. } => drop(reply.send(Err(error))),
            Self::EnsureOrg { reply, .. } => drop(reply.send(Err(error))),
            Self::ForgetIdempotency { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

impl Refused {
    fn store(self) -> StoreError {
        match self {
            Self::UnknownOrg | Self::IdempotencyConflict | Self::NotLive => StoreError::UnknownOrg,
            Self::Foreign => StoreError::ForeignRecord,
            Self::Taken(id) => StoreError::Taken(id),
            Self::Unsealable(why) => why.into(),
            Self::Corrupt(source) => StoreError::Corrupt { table: "sessions", source },
        }
    }
}
