//! Idempotency keys: one request, one session.

use std::collections::BTreeSet;

use tokio::task::JoinSet;
use wire::{Phase, Session, Timestamp};

use super::{
    Subject,
    support::{World, new, now},
};
use crate::{CreateError, Created, Idempotency, NewSession, Old};

fn idempotency(key: &str, digest: &str) -> Idempotency {
    Idempotency { key: key.to_owned(), request_digest: digest.to_owned() }
}

fn keyed(session: &Session, key: &str, digest: &str) -> NewSession {
    NewSession { idempotency: Some(idempotency(key, digest)), ..new(session) }
}

async fn create(world: &World, key: &str, digest: &str) -> (Session, Result<Created, CreateError>) {
    let session = world.session();
    let created = world.tenant.create_session(keyed(&session, key, digest)).await;
    (session, created)
}

pub async fn the_same_request_gets_the_session_that_it_made(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let (first, created) = create(&world, "key", "digest").await;
    assert!(matches!(created, Ok(Created::New(_))), "{created:?}");
    let first = world.moved(&first, Phase::Running).await;
    let (second, created) = create(&world, "key", "digest").await;
    let Ok(Created::Existing(existing)) = created else { panic!("not the earlier session: {created:?}") };
    assert_eq!(*existing, first, "as it is now");
    assert_eq!(world.tenant.session(second.id).await.expect("a read"), None);
    assert_eq!(world.verified().await, 2);
}

pub async fn another_request_with_the_same_key_is_a_conflict(subject: &dyn Subject) {
    let world = World::new(subject).await;
    create(&world, "key", "digest").await.1.expect("a session is recorded");
    let (second, created) = create(&world, "key", "another digest").await;
    assert!(matches!(created, Err(CreateError::IdempotencyConflict)), "{created:?}");
    assert_eq!(world.tenant.session(second.id).await.expect("a read"), None);
    assert_eq!(world.verified().await, 1);
}

pub async fn what_a_key_has_made_is_found_without_a_write(subject: &dyn Subject) {
    let (world, other) = (World::new(subject).await, World::new(subject).await);
    let none = world.tenant.repeated(&idempotency("key", "digest")).await;
    assert!(matches!(none, Ok(None)), "{none:?}");
    let first = create(&world, "key", "digest").await.0;
    let first = world.moved(&first, Phase::Running).await;
    let found = world.tenant.repeated(&idempotency("key", "digest")).await;
    assert_eq!(found.expect("a read"), Some(first), "as it is now");
    let conflict = world.tenant.repeated(&idempotency("key", "another digest")).await;
    assert!(matches!(conflict, Err(CreateError::IdempotencyConflict)), "{conflict:?}");
    let theirs = other.tenant.repeated(&idempotency("key", "digest")).await;
    assert!(matches!(theirs, Ok(None)), "{theirs:?}");
    assert_eq!((world.verified().await, other.verified().await), (2, 0));
}

pub async fn a_key_belongs_to_one_org(subject: &dyn Subject) {
    let (world, other) = (World::new(subject).await, World::new(subject).await);
    for world in [world, other] {
        let (session, created) = create(&world, "key", "digest").await;
        assert!(matches!(created, Ok(Created::New(_))), "{created:?}");
        assert_eq!(world.tenant.session(session.id).await.expect("a read"), Some(session));
    }
}

pub async fn concurrent_creations_with_one_key_make_one_session(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let mut creations = JoinSet::new();
    for _ in 0..50 {
        let world = world.clone();
        creations.spawn(async move { create(&world, "key", "digest").await });
    }
    let (mut made, mut given) = (Vec::new(), BTreeSet::new());
    while let Some(done) = creations.join_next().await {
        let (session, created) = done.expect("no creation panics");
        match created.expect("every creation is answered with a session") {
            Created::New(_) => made.push(session.id),
            Created::Existing(existing) => drop(given.insert(existing.id)),
        }
    }
    assert_eq!(made.len(), 1);
    assert_eq!(given.into_iter().collect::<Vec<_>>(), made);
    assert_eq!(world.verified().await, 1);
}

pub async fn an_old_key_is_forgotten_and_a_young_one_is_kept(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let mut old = world.session();
    old.created_at = Timestamp::from_millis(now().as_millis() - 1000);
    world.tenant.create_session(keyed(&old, "old", "digest")).await.expect("a session is recorded");
    create(&world, "young", "digest").await.1.expect("a session is recorded");
    assert_eq!(world.system.forget(Old { keys: now(), deliveries: now() }).await.expect("a write"), 1);
    assert_eq!(world.system.forget(Old { keys: now(), deliveries: now() }).await.expect("a write"), 0);
    let created = create(&world, "old", "another digest").await.1;
    assert!(matches!(created, Ok(Created::New(_))), "{created:?}");
    let created = create(&world, "young", "digest").await.1;
    assert!(matches!(created, Ok(Created::Existing(_))), "{created:?}");
    assert_eq!(world.tenant.session(old.id).await.expect("a read"), Some(old), "its session stays");
}
