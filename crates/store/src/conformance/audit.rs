//! The audit log: one chain per org, whoever writes.

use std::sync::Arc;

use model::audit::{Draft, Head};
use tokio::task::JoinSet;
use wire::{AuditType, Phase};

use super::{
    Subject,
    support::{World, draft, key, key_draft, kinds, new, now, org_id, session, session_id, update},
};
use crate::{AuditFilter, SessionFilter, StoreError, UpdateError, verify};

pub async fn events_come_back_sealed_and_are_read_in_order(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let noted = Draft { session_id: None, ..draft(AuditType::SessionRefused, session_id()) }.by("key_9");
    let mut written = world.tenant.append_audit(vec![noted.clone(), noted]).await.expect("events are added");
    let session = world.created().await;
    written.extend(world.audit_of(session.id).await);
    let all = AuditFilter { session: None, after_seq: 0, limit: 100 };
    let read = world.tenant.audit(all).await.expect("the audit log is read");
    assert_eq!(read, written);
    assert_eq!(kinds(&read), [AuditType::SessionRefused, AuditType::SessionRefused, AuditType::SessionCreated]);
    assert_eq!(read.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((read[0].actor.as_str(), read[0].ts), ("key_9", now()));
    let head = world.tenant.audit_head().await.expect("a head");
    assert_eq!(head, Head { seq: 3, hash: read[2].hash.clone() });
    assert_eq!(verify(&*world.store, world.org).await.expect("the chain verifies"), head);
    assert_eq!(world.tenant.append_audit(Vec::new()).await.expect("nothing is added"), []);
    assert_eq!(world.verified().await, 3);
}

pub async fn a_page_goes_on_behind_a_position(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let (one, two) = (world.created().await, world.created().await);
    for _ in 0..5 {
        world.moved(&one, Phase::Running).await;
        world.moved(&two, Phase::Running).await;
    }
    let whole = world.audit_of(one.id).await;
    assert_eq!(whole.len(), 6);
    let mut read = Vec::new();
    loop {
        let after_seq = read.last().map_or(0, |event: &wire::AuditEvent| event.seq);
        let filter = AuditFilter { session: Some(one.id), after_seq, limit: 4 };
        let page = world.tenant.audit(filter).await.expect("the audit log is read");
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 4);
        read.extend(page);
    }
    assert_eq!(read, whole);
    let beyond = AuditFilter { session: None, after_seq: u64::MAX, limit: 4 };
    assert_eq!(world.tenant.audit(beyond).await.expect("the audit log is read"), []);
}

/// Fifty tasks, each a whole life of a session and some more, ten times over: 50 * 40 writes.
pub async fn two_thousand_concurrent_writes_make_one_chain(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        let world = world.clone();
        tasks.spawn(async move {
            for _ in 0..4 {
                let session = world.created().await;
                for phase in [Phase::Running, Phase::Succeeded, Phase::TornDown] {
                    world.moved(&session, phase).await;
                }
                let late = world.tenant.update_session(update(&session, Phase::Running)).await;
                assert!(matches!(late, Err(UpdateError::NotLive(_))), "{late:?}");
                let note = draft(AuditType::AccessDenied, session.id);
                let noted = world.tenant.append_audit(vec![note.clone(), note]).await.expect("events are added");
                assert_eq!(noted[1].prev_hash, noted[0].hash);
                let (key, created) = key(world.org, "concurrent");
                let id = key.id;
                world.tenant.create_key(key, created).await.expect("a key is recorded");
                for works in [true, false] {
                    let revoked = world.tenant.revoke_key(id, key_draft(AuditType::KeyRevoked, id)).await;
                    assert_eq!(revoked.expect("a write"), works);
                }
                world.created().await;
                assert!(kinds(&world.audit_of(session.id).await).starts_with(&[
                    AuditType::SessionCreated,
                    AuditType::SandboxStarted,
                    AuditType::WorkloadExited,
                    AuditType::SessionTornDown,
                ]));
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no task fails");
    }
    // Four of the session, two notes, two of the key, one of the other session.
    assert_eq!(world.verified().await, 50 * 4 * 9);
}

pub async fn two_stores_on_one_database_make_one_chain(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let other = subject.reopen().await;
    let mut tasks = JoinSet::new();
    for number in 0..20 {
        let tenant = if number % 2 == 0 { Arc::clone(&world.tenant) } else { other.tenant(world.org) };
        let org = world.org;
        tasks.spawn(async move {
            for _ in 0..10 {
                let session = session(org);
                tenant.create_session(new(&session)).await.expect("a session is recorded");
                let done = tenant.update_session(update(&session, Phase::TornDown)).await;
                done.expect("a live session is updated");
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no task fails");
    }
    assert_eq!(world.verified().await, 400);
    assert_eq!(verify(&*other, world.org).await.expect("the chain verifies").seq, 400);
    other.close().await;
    world.created().await;
    assert_eq!(world.verified().await, 401);
}

pub async fn an_unknown_org_is_empty_and_cannot_be_written(subject: &dyn Subject) {
    let known = World::new(subject).await;
    let org = org_id();
    let tenant = known.store.tenant(org);
    let never = session(org);
    assert_eq!(tenant.session(never.id).await.expect("a read"), None);
    assert_eq!(tenant.result(never.id).await.expect("a read"), None);
    let page = tenant.sessions(SessionFilter { limit: 10, ..SessionFilter::default() }).await.expect("a page");
    assert!(page.items.is_empty() && page.next_cursor.is_none());
    assert_eq!(tenant.audit(AuditFilter { session: None, after_seq: 0, limit: 10 }).await.expect("a read"), []);
    assert_eq!(tenant.audit_head().await.expect("a head"), Head::default());
    assert_eq!(tenant.keys().await.expect("a read"), []);
    assert_eq!(verify(&*known.store, org).await.expect("an empty chain verifies"), Head::default());

    assert!(matches!(tenant.create_session(new(&never)).await, Err(crate::CreateError::Store(StoreError::UnknownOrg))));
    assert!(matches!(tenant.update_session(update(&never, Phase::Running)).await, Err(UpdateError::NotLive(_))));
    let note = draft(AuditType::AccessDenied, never.id);
    assert!(matches!(tenant.append_audit(vec![note]).await, Err(StoreError::UnknownOrg)));
    let (key, created) = key(org, "nobody's");
    let id = key.id;
    assert!(matches!(tenant.create_key(key, created).await, Err(StoreError::UnknownOrg)));
    assert!(!tenant.revoke_key(id, key_draft(AuditType::KeyRevoked, id)).await.expect("nothing is revoked"));
    assert_eq!(known.system.key(id).await.expect("a read"), None);
    assert_eq!(tenant.audit_head().await.expect("a head"), Head::default());
}
