//! The store on SQLite: one machine, one file.
//!
//! Write-ahead log, one writer task with a connection of its own, a few read-only connections beside it. The writer takes
//! everything that is queued into one transaction (group commit), so that a thousand sessions a second cost a few
//! hundred commits. `synchronous` is NORMAL: what was answered survives the death of the process at any moment; a loss
//! of power may take back the last commits, all of each or nothing, and never breaks the file or the audit chain.

mod read;
mod row;
mod write;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use model::audit::{Draft, Head};
use sqlx::{
    ConnectOptions, Connection as _, SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous},
};
use wire::{
    AuditEvent, BindingId, BindingPage, DeliveryId, DeliveryPage, Fleet, FleetId, FleetMemberPage, FleetPage,
    FleetResultPage, KeyId, OrgId, Session, SessionId, SessionPage, SessionResult, Timestamp, TriggerId, TriggerPage,
    TriggerRun, Turn, TurnPage, WebhookDelivery,
};

use crate::{
    AuditFilter, BindingChange, BindingError, BindingFilter, BindingRecord, Claim, Claimed, CreateError, Created,
    CreatedFleet, DeliveryFilter, DueTrigger, FleetChange, FleetFilter, Idempotency, KeptArtifact, KeyRecord,
    MemberError, MemberFilter, NewFleet, NewSession, NotFired, Old, OpenError, Org, Seat, SessionFilter, Settlement,
    Store, StoreError, System, Task, Tenant, TriggerChange, TriggerError, TriggerFilter, TriggerRecord, TurnFilter,
    TurnRecord, Unfinished, Unstarted, Update, UpdateError, WaitingFiring, WebhookSecretRecord,
};
use write::{DeliveryChange, Operation, Writer};

/// How long a connection waits for another process (the CLI, say) that is writing.
const BUSY: Duration = Duration::from_secs(10);
/// Between two tries to open a file that is busy.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
const READERS: u32 = 4;

/// Shipped migrations. A shipped file is never edited; the next one goes behind it.
const MIGRATIONS: [(i64, &str, &str); 7] = [
    (1, "first", include_str!("../migrations/sqlite/0001_first.sql")),
    (2, "bindings", include_str!("../migrations/sqlite/0002_bindings.sql")),
    (3, "turns", include_str!("../migrations/sqlite/0003_turns.sql")),
    (4, "artifacts", include_str!("../migrations/sqlite/0004_artifacts.sql")),
    (5, "fleets", include_str!("../migrations/sqlite/0005_fleets.sql")),
    (6, "webhooks", include_str!("../migrations/sqlite/0006_webhooks.sql")),
    (7, "triggers", include_str!("../migrations/sqlite/0007_triggers.sql")),
];

/// A database file.
#[derive(Clone, Debug)]
pub struct Sqlite {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    writer: Writer,
    readers: SqlitePool,
    /// Removed with the last handle, for a store that nobody should find again.
    _scratch: Option<tempfile::TempDir>,
}

impl Sqlite {
    /// Opens the file, makes it (readable by its owner alone) if there is none, and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_with(path, None).await
    }

    /// A store that nobody finds again: a temporary directory, gone with the last handle.
    pub async fn open_in_memory() -> Result<Self, OpenError> {
        let scratch = tempfile::tempdir().map_err(|source| OpenError::Directory { source })?;
        let path = scratch.path().join("enclave.db");
        Self::open_with(&path, Some(scratch)).await
    }

    async fn open_with(path: &Path, scratch: Option<tempfile::TempDir>) -> Result<Self, OpenError> {
        make_private(path).map_err(|source| OpenError::Directory { source })?;
        let deadline = Instant::now() + BUSY;
        let (writer, readers) = loop {
            match connect(path).await {
                // While another process starts or removes the write-ahead log, SQLite does not wait by itself.
                Err(error) if error.is_busy() && Instant::now() < deadline => tokio::time::sleep(BUSY_PAUSE).await,
                other => break other?,
            }
        };
        Ok(Self { inner: Arc::new(Inner { writer, readers, _scratch: scratch }) })
    }

    async fn write<T>(&self, operation: impl FnOnce(write::Reply<T>) -> Operation) -> Result<T, StoreError> {
        self.inner.writer.submit(operation).await
    }

    fn readers(&self) -> Result<&SqlitePool, StoreError> {
        if self.inner.readers.is_closed() { Err(StoreError::Closed) } else { Ok(&self.inner.readers) }
    }
}

/// Brings the schema up to date and opens all connections.
async fn connect(path: &Path) -> Result<(Writer, SqlitePool), OpenError> {
    let shown = || path.display().to_string();
    let opening = |source| OpenError::Open { path: shown(), source };
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        // The writer waits by itself.
        .busy_timeout(Duration::ZERO);
    let mut connection = options.connect().await.map_err(opening)?;
    // All of it in one transaction that nobody else can be in: several processes may find the same new file.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(opening)?;
    migrator()
        .run_direct(None, &mut *transaction, false)
        .await
        .map_err(|source| OpenError::Migrate { path: shown(), source })?;
    transaction.commit().await.map_err(opening)?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .connect_with(options.clone().read_only(true).busy_timeout(BUSY))
        .await
        .map_err(opening)?;
    Ok((Writer::start(connection, options), readers))
}

fn migrator() -> Migrator {
    let migrations = MIGRATIONS.map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.into())
}

/// Makes the file with mode 0600 before SQLite would make it with the process's umask. One that is there is not opened:
/// closing it again would give up the locks that this process may have on it.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    match std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[async_trait]
impl Store for Sqlite {
    fn tenant(&self, org: OrgId) -> Arc<dyn Tenant> {
        Arc::new(SqliteTenant { store: self.clone(), org })
    }

    fn system(&self) -> Arc<dyn System> {
        Arc::new(SqliteSystem { store: self.clone() })
    }

    async fn close(&self) {
        // The last connection to go writes the log back into the file and removes it, which a reader cannot.
        self.inner.readers.close().await;
        self.inner.writer.close().await;
    }
}

struct SqliteTenant {
    store: Sqlite,
    org: OrgId,
}

#[async_trait]
impl Tenant for SqliteTenant {
    async fn create_session(&self, new: NewSession) -> Result<Created, CreateError> {
        let org = self.org;
        self.store.write(|reply| Operation::Create { org, new: Box::new(new), reply }).await?
    }

    async fn repeated(&self, idempotency: &Idempotency) -> Result<Option<Session>, CreateError> {
        read::repeated(self.store.readers()?, self.org, idempotency).await
    }

    async fn update_session(&self, update: Update) -> Result<Vec<AuditEvent>, UpdateError> {
        let org = self.org;
        self.store.write(|reply| Operation::Update { org, update: Box::new(update), reply }).await?
    }

    async fn session(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        read::session(self.store.readers()?, self.org, id).await
    }

    async fn sessions(&self, filter: SessionFilter) -> Result<SessionPage, StoreError> {
        read::sessions(self.store.readers()?, self.org, &filter).await
    }

    async fn result(&self, id: SessionId) -> Result<Option<SessionResult>, StoreError> {
        read::result(self.store.readers()?, self.org, id).await
    }

    async fn record_turn(&self, record: TurnRecord) -> Result<Vec<AuditEvent>, UpdateError> {
        let org = self.org;
        self.store.write(|reply| Operation::Turn { org, record: Box::new(record), reply }).await?
    }

    async fn turn(&self, session: SessionId, number: u32) -> Result<Option<Turn>, StoreError> {
        read::turns::one(self.store.readers()?, self.org, session, number).await
    }

    async fn turns(&self, filter: TurnFilter) -> Result<TurnPage, StoreError> {
        read::turns::page(self.store.readers()?, self.org, &filter).await
    }

    async fn open_turns(&self, session: SessionId) -> Result<Vec<Turn>, StoreError> {
        read::turns::open(self.store.readers()?, self.org, session).await
    }

    async fn audit(&self, filter: AuditFilter) -> Result<Vec<AuditEvent>, StoreError> {
        read::audit(self.store.readers()?, self.org, &filter).await
    }

    async fn audit_head(&self) -> Result<Head, StoreError> {
        read::head(self.store.readers()?, self.org).await
    }

    async fn append_audit(&self, drafts: Vec<Draft>) -> Result<Vec<AuditEvent>, StoreError> {
        let org = self.org;
        self.store.write(|reply| Operation::Append { org, drafts, reply }).await?
    }

    async fn create_key(&self, key: KeyRecord, draft: Draft) -> Result<(), StoreError> {
        let org = self.org;
        self.store
            .write(|reply| Operation::CreateKey { org, key: Box::new(key), draft: Box::new(draft), reply })
            .await?
    }

    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        read::keys(self.store.readers()?, self.org).await
    }

    async fn revoke_key(&self, id: KeyId, draft: Draft) -> Result<bool, StoreError> {
        let org = self.org;
        self.store.write(|reply| Operation::RevokeKey { org, id, draft: Box::new(draft), reply }).await?
    }

    async fn change_binding(&self, change: BindingChange) -> Result<(), BindingError> {
        let org = self.org;
        self.store.write(|reply| Operation::Binding { org, change: Box::new(change), reply }).await?
    }

    async fn bindings(&self, filter: BindingFilter) -> Result<BindingPage, StoreError> {
        read::bindings::page(self.store.readers()?, self.org, &filter).await
    }

    async fn binding(&self, id: BindingId) -> Result<Option<BindingRecord>, StoreError> {
        read::bindings::by_id(self.store.readers()?, self.org, id).await
    }

    async fn artifacts(&self, session: SessionId) -> Result<Vec<KeptArtifact>, StoreError> {
        read::artifacts::of(self.store.readers()?, self.org, session).await
    }

    async fn artifact(&self, session: SessionId, path: &str) -> Result<Option<KeptArtifact>, StoreError> {
        read::artifacts::at(self.store.readers()?, self.org, session, path).await
    }

    async fn forget_artifacts(&self, session: SessionId) -> Result<(), StoreError> {
        let org = self.org;
        self.store.write(|reply| Operation::ForgetArtifacts { org, session, reply }).await?.map(drop)
    }

    async fn binding_named(&self, name: &str) -> Result<Option<BindingRecord>, StoreError> {
        read::bindings::by_name(self.store.readers()?, self.org, name).await
    }

    async fn deliveries(&self, filter: DeliveryFilter) -> Result<DeliveryPage, StoreError> {
        read::webhooks::page(self.store.readers()?, self.org, &filter).await
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<WebhookDelivery>, StoreError> {
        read::webhooks::by_id(self.store.readers()?, self.org, id).await
    }

    async fn retry_delivery(&self, id: DeliveryId, due: Timestamp, until: Timestamp) -> Result<bool, StoreError> {
        let (org, change) = (self.org, Box::new(DeliveryChange::Retry { id, due, until }));
        self.store.write(|reply| Operation::Delivery { org, change, reply }).await?
    }

    async fn settle_delivery(&self, settlement: Settlement) -> Result<bool, StoreError> {
        let (org, change) = (self.org, Box::new(DeliveryChange::Settle(settlement)));
        self.store.write(|reply| Operation::Delivery { org, change, reply }).await?
    }

    async fn webhook_secret(&self) -> Result<Option<WebhookSecretRecord>, StoreError> {
        Ok(read::webhooks::secret(self.store.readers()?, self.org).await?)
    }

    async fn set_webhook_secret(&self, record: WebhookSecretRecord, drafts: Vec<Draft>) -> Result<bool, StoreError> {
        let (org, record) = (self.org, Box::new(record));
        self.store.write(|reply| Operation::WebhookSecret { org, record, drafts, reply }).await?
    }

    async fn create_fleet(&self, new: NewFleet) -> Result<CreatedFleet, CreateError> {
        let org = self.org;
        self.store.write(|reply| Operation::CreateFleet { org, new: Box::new(new), reply }).await?
    }

    async fn repeated_fleet(&self, idempotency: &Idempotency) -> Result<Option<Fleet>, CreateError> {
        read::fleets::repeated(self.store.readers()?, self.org, idempotency).await
    }

    async fn create_member(&self, seat: Seat, new: NewSession) -> Result<Vec<AuditEvent>, MemberError> {
        let org = self.org;
        self.store.write(|reply| Operation::CreateMember { org, seat, new: Box::new(new), reply }).await?
    }

    async fn change_fleet(&self, change: FleetChange) -> Result<(), StoreError> {
        let org = self.org;
        self.store.write(|reply| Operation::Fleet { org, change: Box::new(change), reply }).await?
    }

    async fn fleet(&self, id: FleetId) -> Result<Option<Fleet>, StoreError> {
        read::fleets::by_id(self.store.readers()?, self.org, id).await
    }

    async fn fleets(&self, filter: FleetFilter) -> Result<FleetPage, StoreError> {
        read::fleets::page(self.store.readers()?, self.org, &filter).await
    }

    async fn fleet_members(&self, filter: MemberFilter) -> Result<FleetMemberPage, StoreError> {
        read::fleets::members(self.store.readers()?, self.org, &filter).await
    }

    async fn fleet_results(&self, filter: MemberFilter) -> Result<FleetResultPage, StoreError> {
        read::fleets::results(self.store.readers()?, self.org, &filter).await
    }

    async fn fleet_task(&self, seat: Seat) -> Result<Option<Task>, StoreError> {
        read::fleets::task(self.store.readers()?, self.org, seat).await
    }

    async fn fleet_binding_calls(&self, id: FleetId) -> Result<u64, StoreError> {
        read::fleets::binding_calls(self.store.readers()?, self.org, id).await
    }

    async fn change_trigger(&self, change: TriggerChange) -> Result<(), TriggerError> {
        let org = self.org;
        self.store.write(|reply| Operation::Trigger { org, change: Box::new(change), reply }).await?
    }

    async fn triggers(&self, filter: TriggerFilter) -> Result<TriggerPage, StoreError> {
        read::triggers::page(self.store.readers()?, self.org, &filter).await
    }

    async fn trigger(&self, id: TriggerId) -> Result<Option<TriggerRecord>, StoreError> {
        read::triggers::by_id(self.store.readers()?, self.org, id).await
    }

    async fn trigger_runs(&self, id: TriggerId, limit: u32) -> Result<Vec<TriggerRun>, StoreError> {
        read::triggers::runs(self.store.readers()?, self.org, id, limit).await
    }

    async fn record_firing(&self, unstarted: Unstarted) -> Result<TriggerRun, NotFired> {
        let org = self.org;
        self.store.write(|reply| Operation::Unstarted { org, unstarted: Box::new(unstarted), reply }).await?
    }
}

struct SqliteSystem {
    store: Sqlite,
}

#[async_trait]
impl System for SqliteSystem {
    async fn unfinished(&self) -> Result<Vec<Unfinished>, StoreError> {
        read::unfinished(self.store.readers()?).await
    }

    async fn unfinished_fleets(&self) -> Result<Vec<Fleet>, StoreError> {
        read::fleets::unfinished(self.store.readers()?).await
    }

    async fn key(&self, id: KeyId) -> Result<Option<KeyRecord>, StoreError> {
        read::key(self.store.readers()?, id).await
    }

    async fn ensure_org(&self, name: &str, candidate: OrgId) -> Result<Org, StoreError> {
        let org = Org { id: candidate, name: name.to_owned() };
        self.store.write(|reply| Operation::EnsureOrg { org, reply }).await?
    }

    async fn orgs(&self) -> Result<Vec<Org>, StoreError> {
        read::orgs(self.store.readers()?).await
    }

    async fn forget(&self, old: Old) -> Result<u64, StoreError> {
        self.store.write(|reply| Operation::Forget { old, reply }).await?
    }

    async fn sealed(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        read::sealed(self.store.readers()?).await
    }

    async fn trigger(&self, id: TriggerId) -> Result<Option<TriggerRecord>, StoreError> {
        read::triggers::anywhere(self.store.readers()?, id).await
    }

    async fn due_triggers(&self, now: Timestamp, limit: u32) -> Result<Vec<DueTrigger>, StoreError> {
        read::triggers::due(self.store.readers()?, now, limit).await
    }

    async fn next_trigger(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        read::triggers::next(self.store.readers()?, after).await
    }

    async fn waiting_firings(&self, limit: u32) -> Result<Vec<WaitingFiring>, StoreError> {
        read::triggers::waiting(self.store.readers()?, limit).await
    }

    async fn claim_deliveries(&self, claim: Claim) -> Result<Vec<Claimed>, StoreError> {
        self.store.write(|reply| Operation::ClaimDeliveries { claim, reply }).await?
    }

    async fn next_delivery(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        read::webhooks::next(self.store.readers()?, after).await
    }

    async fn surplus_artifacts(
        &self,
        before: Timestamp,
        quota_bytes: u64,
    ) -> Result<Vec<(OrgId, SessionId)>, StoreError> {
        read::artifacts::surplus(self.store.readers()?, before, quota_bytes).await
    }

    async fn has_artifacts(&self, session: SessionId) -> Result<bool, StoreError> {
        read::artifacts::exist(self.store.readers()?, session).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        read::ping(self.store.readers()?).await
    }
}
