//! Somebody with the file in hand changes the audit log: verification finds it.

use model::audit::Broken;
use sqlx::Row as _;
use store::{VerifyError, verify};

use super::support::{execute, path, raw, ten_entries};

/// Runs the statements on a file with ten entries, then verifies.
async fn after(statements: &[&'static str]) -> Result<model::audit::Head, VerifyError> {
    let (file, world) = ten_entries().await;
    // Whoever has the file also gets rid of what guards the table.
    let mut connection = raw(&path(&file)).await;
    let guards = sqlx::query("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetch_all(&mut connection).await;
    for guard in guards.unwrap() {
        let name: String = guard.get(0);
        sqlx::query(sqlx::AssertSqlSafe(format!("DROP TRIGGER {name}"))).execute(&mut connection).await.unwrap();
    }
    for statement in statements {
        assert!(execute(&path(&file), statement).await > 0, "{statement} changed something");
    }
    verify(&*world.store, world.org).await
}

#[tokio::test]
async fn a_mistake_of_ours_cannot_change_or_cut_the_log() {
    let (file, world) = ten_entries().await;
    for statement in ["UPDATE audit SET hash = ''", "DELETE FROM audit WHERE seq = 10"] {
        let refused = sqlx::query(statement).execute(&mut raw(&path(&file)).await).await;
        assert!(refused.unwrap_err().to_string().contains("append-only"), "{statement}");
    }
    assert_eq!(verify(&*world.store, world.org).await.unwrap().seq, 10);
}

#[tokio::test]
async fn a_changed_entry_is_found() {
    let changed = [
        "UPDATE audit SET canonical = replace(canonical, '\"actor\":\"platform\"', '\"actor\":\"nobody\"') WHERE seq = 4",
        "UPDATE audit SET canonical = replace(canonical, '2026-', '2025-') WHERE seq = 4",
        "UPDATE audit SET canonical = replace(canonical, 'true', 'false') WHERE seq = 4",
        "UPDATE audit SET canonical = replace(canonical, 'ses_', 'ses_') || ' ' WHERE seq = 4",
        "UPDATE audit SET canonical = replace(canonical, '\"actor\":', ' \"actor\":') WHERE seq = 4",
        "UPDATE audit SET canonical = replace(canonical, '{\"actor\"', '{\"extra\":1,\"actor\"') WHERE seq = 4",
        "UPDATE audit SET canonical = replace(canonical, '\"n\":1', '\"n\":2,\"n\":1') WHERE seq = 4",
        "UPDATE audit SET canonical = '{}' WHERE seq = 4",
        "UPDATE audit SET canonical = '' WHERE seq = 4",
        "UPDATE audit SET hash = replace(hash, substr(hash, 1, 1), 'x') WHERE seq = 4",
        "UPDATE audit SET hash = (SELECT hash FROM audit WHERE seq = 5) WHERE seq = 4",
    ];
    for statement in changed {
        let verified = after(&[statement]).await;
        assert!(verified.is_err(), "{statement} was not found");
    }
    let verified = after(&[changed[0]]).await;
    assert!(matches!(verified, Err(VerifyError::Broken(Broken::Content { seq: 4 }))), "{verified:?}");
}

/// The columns beside the text decide who sees an entry, and where.
#[tokio::test]
async fn an_entry_that_is_hidden_or_moved_by_its_columns_is_found() {
    for statement in [
        "UPDATE audit SET session_id = NULL WHERE seq = 4",
        "UPDATE audit SET session_id = 'ses_01890a5d-ac96-774b-bcce-b302099a8057' WHERE seq = 4",
        "UPDATE audit SET seq = 11 WHERE seq = 10",
    ] {
        assert!(after(&[statement]).await.is_err(), "{statement} was not found");
    }
}

#[tokio::test]
async fn a_dropped_entry_is_found() {
    for statement in ["DELETE FROM audit WHERE seq = 1", "DELETE FROM audit WHERE seq = 4"] {
        let verified = after(&[statement]).await;
        assert!(matches!(verified, Err(VerifyError::Broken(Broken::Order { .. }))), "{statement}: {verified:?}");
    }
}

#[tokio::test]
async fn a_cut_tail_is_found() {
    for statement in ["DELETE FROM audit WHERE seq = 10", "DELETE FROM audit WHERE seq > 4", "DELETE FROM audit"] {
        let verified = after(&[statement]).await;
        assert!(matches!(verified, Err(VerifyError::HeadMismatch { .. })), "{statement}: {verified:?}");
    }
}

#[tokio::test]
async fn reordered_entries_are_found() {
    let swapped = after(&[
        "UPDATE audit SET seq = 1004 WHERE seq = 4",
        "UPDATE audit SET seq = 4 WHERE seq = 5",
        "UPDATE audit SET seq = 5 WHERE seq = 1004",
    ])
    .await;
    assert!(swapped.is_err(), "swapped places were not found");
    let contents = "UPDATE audit SET canonical = (SELECT other.canonical FROM audit other WHERE other.seq = 9 - audit.seq), \
                    hash = (SELECT other.hash FROM audit other WHERE other.seq = 9 - audit.seq) WHERE seq IN (4, 5)";
    assert!(after(&[contents]).await.is_err(), "swapped contents were not found");
    assert!(
        after(&["INSERT INTO audit SELECT org_id, 11, session_id, hash, canonical FROM audit WHERE seq = 10"])
            .await
            .is_err(),
        "a doubled entry was not found"
    );
}

#[tokio::test]
async fn an_untouched_file_verifies() {
    let (file, world) = ten_entries().await;
    execute(&path(&file), "UPDATE sessions SET sandbox = 'box'").await;
    assert_eq!(verify(&*world.store, world.org).await.unwrap().seq, 10);
}
