//! The SQLite store: the suite that every store passes, and what only a file can suffer.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sqlite {
    mod file;
    mod killed;
    mod support;
    mod tampered;
}

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{ConnectOptions as _, Row as _, sqlite::SqliteConnectOptions};
use store::{OutboxMessage, Store, conformance::Subject, sqlite::Sqlite};
use tempfile::TempDir;
use wire::OrgId;

struct File {
    directory: TempDir,
    store: Arc<Sqlite>,
}

async fn open() -> File {
    let directory = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&directory.path().join("enclave.db")).await.unwrap();
    File { directory, store: Arc::new(store) }
}

#[async_trait]
impl Subject for File {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn reopen(&self) -> Arc<dyn Store> {
        Arc::new(Sqlite::open(&self.directory.path().join("enclave.db")).await.unwrap())
    }

    async fn outbox(&self, org: OrgId) -> Vec<OutboxMessage> {
        let options = SqliteConnectOptions::new().filename(self.directory.path().join("enclave.db"));
        let mut connection = options.connect().await.unwrap();
        let rows = sqlx::query("SELECT topic, payload FROM outbox WHERE org_id = ? ORDER BY id")
            .bind(org.to_string())
            .fetch_all(&mut connection)
            .await
            .unwrap();
        rows.iter().map(|row| OutboxMessage { topic: row.get(0), payload: row.get(1) }).collect()
    }
}

store::conformance!(crate::open);
