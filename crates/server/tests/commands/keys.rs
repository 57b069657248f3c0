//! `enclave key` and `enclave audit`, beside a running server and without one.

use std::fs;

use client::{ClientError, ListSessions};
use sqlx::{Connection, Executor, SqliteConnection};
use wire::{CreateSession, ErrorCode};

use crate::place::{Left, Place};

fn code(error: &ClientError) -> ErrorCode {
    error.problem().unwrap_or_else(|| panic!("{error:?}")).code
}

/// Makes a key, and gives it.
fn create(place: &Place, args: &[&str]) -> String {
    let left: Left = place.run(&[&["key", "create"], args].concat());
    assert_eq!(left.code, 0, "{}", left.stderr);
    assert_eq!(left.stdout().lines().count(), 1, "the key is alone on stdout");
    let key = left.stdout().trim().to_owned();
    assert!(key.starts_with("ek_") && !left.stderr.contains(&key), "{}", left.stderr);
    key
}

/// The public id in the list, of the key of that name.
fn id(place: &Place, name: &str) -> String {
    let left = place.run(&["key", "list", "--json"]);
    let keys: Vec<serde_json::Value> = serde_json::from_slice(&left.stdout).unwrap();
    keys.iter().find(|key| key["name"] == name).unwrap()["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_works_from_its_making_to_its_revoking() {
    let place = Place::new();
    let before = create(&place, &["--org", "acme", "--role", "developer", "--name", "before the first start"]);
    let server = place.serve(&["--backend", "simulator"]);
    let while_running = create(&place, &["--org", "acme", "--role", "developer", "--name", "while it runs"]);
    let request = CreateSession { code: Some("# sim: exit 0".into()), ..CreateSession::default() };
    for key in [&before, &while_running] {
        server.client(Some(key)).create(&request).await.unwrap();
    }
    let nobody = server.client(None).create(&request).await.unwrap_err();
    assert_eq!(code(&nobody), ErrorCode::Unauthenticated);

    let revoked = place.run(&["key", "revoke", &id(&place, "while it runs")]);
    assert_eq!((revoked.code, revoked.stdout()), (0, ""), "{}", revoked.stderr);
    let refused = server.client(Some(&while_running)).create(&request).await.unwrap_err();
    assert_eq!(code(&refused), ErrorCode::Unauthenticated);
    server.client(Some(&before)).create(&request).await.unwrap();

    let again = place.run(&["key", "revoke", &id(&place, "while it runs")]);
    assert_eq!(again.code, 1);
    let unknown = place.run(&["key", "revoke", "key_01890a5d-ac96-774b-bcce-b302099a8057"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.stderr.contains("there is no key"), "{}", unknown.stderr);
    let verified = place.run(&["audit", "verify"]);
    assert_eq!(verified.code, 0, "{}", verified.stdout());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_can_do_what_its_role_and_scopes_say_and_only_in_its_org() {
    let place = Place::new();
    let server = place.serve(&["--backend", "simulator"]);
    let owner = create(&place, &["--org", "acme", "--role", "owner"]);
    let viewer = create(&place, &["--org", "acme", "--role", "viewer"]);
    let narrow = create(&place, &["--org", "acme", "--role", "owner", "--scope", "sessions:read"]);
    let other = create(&place, &["--org", "other", "--role", "owner"]);
    let request = CreateSession { code: Some("# sim: exit 0".into()), ..CreateSession::default() };
    let created = server.client(Some(&owner)).create(&request).await.unwrap();

    for key in [&viewer, &narrow] {
        let client = server.client(Some(key));
        assert_eq!(code(&client.create(&request).await.unwrap_err()), ErrorCode::Forbidden);
        client.session(created.id).await.unwrap();
    }
    assert_eq!(code(&server.client(Some(&narrow)).audit(created.id, None).await.unwrap_err()), ErrorCode::Forbidden);
    let stranger = server.client(Some(&other));
    assert_eq!(code(&stranger.session(created.id).await.unwrap_err()), ErrorCode::NotFound);
    assert_eq!(stranger.sessions(&ListSessions::default()).await.unwrap().items, []);

    let left = place.run(&["key", "create", "--org", "acme", "--role", "viewer", "--scope", "sessions:write"]);
    assert_eq!((left.code, left.stdout()), (1, ""));
    assert!(left.stderr.contains("scopes narrow a role"), "{}", left.stderr);
}

#[test]
fn lists_show_no_secret() {
    let place = Place::new();
    let key = create(&place, &["--org", "acme", "--role", "admin", "--name", "ci", "--scope", "keys:read"]);
    let secret = key.rsplit('_').next().unwrap();
    for args in [vec!["key", "list"], vec!["key", "list", "--json"], vec!["key", "list", "--org", "acme"]] {
        let left = place.run(&args);
        assert_eq!(left.code, 0);
        assert!(left.stdout().contains("ci") && left.stdout().contains("keys:read"), "{}", left.stdout());
        assert!(!left.stdout().contains(secret) && !left.stderr.contains(secret));
    }
    assert_eq!(place.run(&["key", "list", "--org", "nobody"]).code, 1);
    for entry in crate::place::entries(&place.data()) {
        let bytes = fs::read(place.data().join(&entry)).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{entry} holds the secret");
    }
}

#[test]
fn keys_of_no_use_are_not_made() {
    let place = Place::new();
    for args in [
        ["--org", "acme", "--role", "king"],
        ["--org", "", "--role", "owner"],
        ["--org", "a\u{1b}[2Jb", "--role", "owner"],
        ["--org", &"x".repeat(101), "--role", "owner"],
    ] {
        let left = place.run(&[&["key", "create"], args.as_slice()].concat());
        assert_eq!((left.code, left.stdout()), (2, ""), "{args:?}");
    }
    let left = place.run(&["key", "list"]);
    assert_eq!(left.code, 1);
    assert!(left.stderr.contains("no server has run with it"), "{}", left.stderr);
    assert!(!place.data().exists(), "a command that only looks makes nothing");
}

#[tokio::test]
async fn a_changed_audit_log_is_found() {
    let place = Place::new();
    create(&place, &["--org", "acme", "--role", "owner"]);
    create(&place, &["--org", "acme", "--role", "viewer"]);
    create(&place, &["--org", "other", "--role", "owner"]);
    let whole = place.run(&["audit", "verify"]);
    assert_eq!(whole.code, 0);
    assert!(whole.stdout().contains("acme: 2 entries, verified; head "), "{}", whole.stdout());
    assert!(whole.stdout().contains("other: 1 entries, verified"), "{}", whole.stdout());
    assert_eq!(place.run(&["audit", "verify", "--org", "nobody"]).code, 1);

    // As somebody with the disk in hand would.
    let url = format!("sqlite:{}", place.data().join("enclave.db").display());
    let mut database = SqliteConnection::connect(&url).await.unwrap();
    database.execute("DROP TRIGGER audit_is_never_changed").await.unwrap();
    let change = "UPDATE audit SET canonical = replace(canonical, 'viewer', 'vIewer') WHERE canonical LIKE '%viewer%'";
    assert_eq!(database.execute(change).await.unwrap().rows_affected(), 1);
    database.close().await.unwrap();
    let broken = place.run(&["audit", "verify"]);
    assert_eq!(broken.code, 1, "{}{}", broken.stdout(), broken.stderr);
    assert!(broken.stdout().contains("acme: BROKEN: "), "{}", broken.stdout());
    assert!(broken.stdout().contains("entry 2"), "{}", broken.stdout());
    assert!(broken.stdout().contains("other: 1 entries, verified"), "{}", broken.stdout());
    assert_eq!(place.run(&["audit", "verify", "--org", "other"]).code, 0);
}
