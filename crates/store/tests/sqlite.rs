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
use sqlx::{
    ConnectOptions as _, Row as _,
    sqlite::{SqliteConnectOptions, SqliteRow},
};
use store::{OutboxMessage, Store, conformance::Subject, sqlite::Sqlite};
use tempfile::TempDir;
use wire::{OrgId, Timestamp, WebhookEventType};

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
        let rows = sqlx::query(
            "SELECT id, session_id, url, payload, created_ms, until_ms FROM deliveries WHERE org_id = ? AND event = ? ORDER BY seq",
        )
        .bind(org.to_string())
        .bind(WebhookEventType::SessionFinished.as_str())
        .fetch_all(&mut connection)
        .await
        .unwrap();
        let message = |row: &SqliteRow| OutboxMessage {
            id: row.get::<String, _>(0).parse().unwrap(),
            session: row.get::<String, _>(1).parse().unwrap(),
            kind: WebhookEventType::SessionFinished,
            url: row.get(2),
            payload: row.get(3),
            created_at: Timestamp::from_millis(row.get(4)),
            until: Timestamp::from_millis(row.get(5)),
        };
        rows.iter().map(message).collect()
    }
}

store::conformance!(crate::open);
