//! Reaching past the store into its file.

use std::path::{Path, PathBuf};

use sqlx::{ConnectOptions as _, SqliteConnection, sqlite::SqliteConnectOptions};
use store::conformance::{Subject as _, support::World};
use wire::Phase;

use crate::File;

pub(super) fn path(file: &File) -> PathBuf {
    file.directory.path().join("enclave.db")
}

pub(super) async fn raw(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).connect().await.unwrap()
}

/// Runs one statement on the file, behind the store's back; gives how many rows it changed.
pub(super) async fn execute(path: &Path, statement: &'static str) -> u64 {
    let mut connection = raw(path).await;
    sqlx::query(statement).execute(&mut connection).await.unwrap().rows_affected()
}

/// A file with one org whose chain has ten entries of three sessions.
pub(super) async fn ten_entries() -> (File, World) {
    let file = crate::open().await;
    let world = World::of(file.store()).await;
    for last in [Phase::Running, Phase::Succeeded, Phase::TornDown] {
        let session = world.created().await;
        for phase in [Phase::Running, Phase::Succeeded, Phase::TornDown] {
            if phase <= last {
                world.moved(&session, phase).await;
            }
        }
    }
    world.created().await;
    assert_eq!(world.verified().await, 10);
    (file, world)
}
