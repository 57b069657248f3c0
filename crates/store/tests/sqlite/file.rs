//! The file itself: who may read it, who may share it, and what is refused.

use std::{os::unix::fs::PermissionsExt as _, sync::Arc};

use serde_json::json;
use sqlx::Connection as _;
use store::{
    OpenError, Store, StoreError, UpdateError,
    conformance::{
        Subject as _,
        support::{World, draft, result, update},
    },
    sqlite::Sqlite,
};
use tokio::task::JoinSet;
use wire::{AuditType, Phase};

use super::support::{execute, path, raw, ten_entries};

#[tokio::test]
async fn a_new_file_and_its_log_are_its_owners_alone() {
    let (file, _world) = ten_entries().await;
    let mut seen = 0;
    for entry in std::fs::read_dir(file.directory.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
        seen += 1;
    }
    assert!(seen >= 2, "the file and its write-ahead log");
}

#[tokio::test]
async fn what_was_written_is_there_after_a_close_and_an_open() {
    let (file, world) = ten_entries().await;
    world.store.close().await;
    let left: Vec<_> =
        std::fs::read_dir(file.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["enclave.db"], "a clean close leaves one file");
    let world = World { store: file.reopen().await, ..world };
    assert_eq!(world.verified().await, 10);
    assert_eq!(world.store.system().unfinished().await.unwrap().len(), 3);
}

#[tokio::test]
async fn what_cannot_be_a_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let missing = Sqlite::open(&directory.path().join("missing/enclave.db")).await;
    assert!(missing.is_err() && !directory.path().join("missing").exists());
    let text = directory.path().join("notes.txt");
    let content = "not a database\n".repeat(1000);
    std::fs::write(&text, &content).unwrap();
    assert!(Sqlite::open(&text).await.is_err());
    assert_eq!(std::fs::read_to_string(&text).unwrap(), content);
    assert!(Sqlite::open(directory.path()).await.is_err());
}

#[tokio::test]
async fn a_file_of_another_version_is_refused() {
    for change in [
        "UPDATE _sqlx_migrations SET version = 9999 WHERE version = 2",
        "UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 1",
    ] {
        let (file, world) = ten_entries().await;
        world.store.close().await;
        assert_eq!(execute(&path(&file), change).await, 1);
        let opened = Sqlite::open(&path(&file)).await;
        assert!(matches!(opened, Err(OpenError::Migrate { .. })), "{change}: {opened:?}");
    }
}

/// Each in a thread and runtime of its own, as processes are. Some find no file, some an empty one, some a half-made one.
#[test]
fn many_can_open_a_new_file_at_once() {
    for _ in 0..5 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("enclave.db");
        let start = Arc::new(std::sync::Barrier::new(6));
        let openers: Vec<_> = (0..6)
            .map(|_| {
                let (path, start) = (path.clone(), Arc::clone(&start));
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    start.wait();
                    runtime.block_on(async {
                        let store: Arc<dyn Store> = Arc::new(Sqlite::open(&path).await?);
                        let world = World::of(store).await;
                        world.created().await;
                        assert_eq!(world.verified().await, 1);
                        world.store.close().await;
                        Ok::<_, OpenError>(())
                    })
                })
            })
            .collect();
        for opener in openers {
            let opened = opener.join().unwrap();
            assert!(opened.is_ok(), "{opened:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_waits_for_another_process_that_writes() {
    let (file, world) = ten_entries().await;
    let mut other = raw(&path(&file)).await;
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let mut writes = JoinSet::new();
    for _ in 0..10 {
        let world = world.clone();
        writes.spawn(async move { drop(world.created().await) });
    }
    // Reads do not wait.
    assert_eq!(world.verified().await, 10);
    lock.commit().await.unwrap();
    while let Some(done) = writes.join_next().await {
        done.unwrap();
    }
    assert_eq!(world.verified().await, 20);
}

/// A failure in the middle of a transaction, one that SQLite leaves open and one that it ends by itself.
#[tokio::test]
async fn after_a_failed_transaction_nothing_of_it_is_left_and_the_next_one_works() {
    for trigger in [
        "CREATE TRIGGER trouble BEFORE INSERT ON audit WHEN new.canonical LIKE '%trouble%' BEGIN SELECT RAISE(ABORT, 'trouble'); END",
        "CREATE TRIGGER trouble BEFORE INSERT ON audit WHEN new.canonical LIKE '%trouble%' BEGIN SELECT RAISE(ROLLBACK, 'trouble'); END",
    ] {
        let (file, world) = ten_entries().await;
        execute(&path(&file), trigger).await;
        let session = world.created().await;
        for _ in 0..3 {
            let mut change = store::conformance::support::update(&session, Phase::Succeeded);
            change.drafts.push(draft(AuditType::AccessDenied, session.id).by("trouble"));
            change.result = Some(store::conformance::support::result(session.id, None));
            change.outbox = vec![store::conformance::support::message("trouble")];
            let failed = world.tenant.update_session(change).await;
            assert!(matches!(failed, Err(store::UpdateError::Store(StoreError::Database(_)))), "{failed:?}");
            assert_eq!(world.tenant.session(session.id).await.unwrap().as_ref(), Some(&session));
            assert_eq!(world.tenant.result(session.id).await.unwrap(), None);
            assert_eq!(file.outbox(world.org).await, []);
        }
        assert_eq!(world.verified().await, 11);
        world.moved(&session, Phase::Running).await;
        assert_eq!(world.verified().await, 12);
    }
}

#[tokio::test]
async fn a_store_in_memory_is_gone_with_its_last_handle() {
    let store = Sqlite::open_in_memory().await.unwrap();
    let world = World::of(Arc::new(store)).await;
    world.created().await;
    assert_eq!(world.verified().await, 1);
    world.store.close().await;
    let again = World::of(Arc::new(Sqlite::open_in_memory().await.unwrap())).await;
    assert_eq!(again.system.orgs().await.unwrap().len(), 1);
}

/// Queued at once and in this order, so that they are in one transaction, or in two.
#[tokio::test]
async fn changes_of_one_session_in_one_go_are_carried_out_in_order() {
    let (_file, world) = ten_entries().await;
    for _ in 0..8 {
        let session = world.created().await;
        let mut running = update(&session, Phase::Running);
        running.sandbox = Some("first".to_owned());
        let mut succeeded = update(&session, Phase::Succeeded);
        succeeded.result = Some(result(session.id, Some(json!("of the second"))));
        let gone = update(&session, Phase::TornDown);
        let last = gone.session.clone();
        let tenant = &world.tenant;
        let (running, succeeded, gone, late) = tokio::join!(
            tenant.update_session(running),
            tenant.update_session(succeeded),
            tenant.update_session(gone),
            tenant.update_session(update(&session, Phase::Running)),
        );
        for done in [running, succeeded, gone] {
            assert_eq!(done.expect("a live session is updated").len(), 1);
        }
        assert!(matches!(late, Err(UpdateError::NotLive(id)) if id == session.id), "{late:?}");
        assert_eq!(tenant.session(session.id).await.expect("a read"), Some(last));
        let kept = tenant.result(session.id).await.expect("a read").expect("it stays").result;
        assert_eq!(kept.expect("it had one").value(), json!("of the second"));
        assert_eq!(world.audit_of(session.id).await.len(), 4);
    }
    world.verified().await;
}
