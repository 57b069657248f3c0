//! The end of a store.

use tokio::task::JoinSet;
use wire::{AuditType, Phase, TurnStatus};

use super::{
    Subject, bindings, fleets,
    support::{World, binding, draft, key, key_draft, new, now, org_id, update},
    turns,
};
use crate::{
    AuditFilter, BindingError, BindingFilter, CreateError, FleetFilter, Idempotency, MemberError, Old, Seat,
    SessionFilter, StoreError, TurnFilter, UpdateError, verify,
};

pub async fn every_call_on_a_closed_store_says_so(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let session = world.created().await;
    let (record, created) = key(world.org, "key");
    let id = record.id;
    let at_once = (world.store.clone(), world.store.clone());
    tokio::join!(at_once.0.close(), at_once.1.close());
    world.store.close().await;

    let (tenant, system) = (world.store.tenant(world.org), &world.system);
    assert!(matches!(tenant.create_session(new(&world.session())).await, Err(CreateError::Store(StoreError::Closed))));
    let repeat = Idempotency { key: "key".to_owned(), request_digest: "digest".to_owned() };
    assert!(matches!(tenant.repeated(&repeat).await, Err(CreateError::Store(StoreError::Closed))));
    let late = tenant.update_session(update(&session, Phase::Running)).await;
    assert!(matches!(late, Err(UpdateError::Store(StoreError::Closed))), "{late:?}");
    assert!(matches!(tenant.session(session.id).await, Err(StoreError::Closed)));
    let page = tenant.sessions(SessionFilter { limit: 1, ..SessionFilter::default() }).await;
    assert!(matches!(page, Err(StoreError::Closed)), "{page:?}");
    assert!(matches!(tenant.result(session.id).await, Err(StoreError::Closed)));
    let late = tenant.record_turn(turns::record(session.id, 1, TurnStatus::Running)).await;
    assert!(matches!(late, Err(UpdateError::Store(StoreError::Closed))), "{late:?}");
    assert!(matches!(tenant.turn(session.id, 1).await, Err(StoreError::Closed)));
    assert!(matches!(tenant.open_turns(session.id).await, Err(StoreError::Closed)));
    let page = tenant.turns(TurnFilter { session: session.id, cursor: None, limit: 1 }).await;
    assert!(matches!(page, Err(StoreError::Closed)), "{page:?}");
    assert!(matches!(tenant.audit(AuditFilter::default()).await, Err(StoreError::Closed)));
    assert!(matches!(tenant.audit_head().await, Err(StoreError::Closed)));
    let note = vec![draft(AuditType::AccessDenied, session.id)];
    assert!(matches!(tenant.append_audit(note).await, Err(StoreError::Closed)));
    assert!(matches!(tenant.create_key(record, created).await, Err(StoreError::Closed)));
    assert!(matches!(tenant.keys().await, Err(StoreError::Closed)));
    let revoked = tenant.revoke_key(id, key_draft(AuditType::KeyRevoked, id)).await;
    assert!(matches!(revoked, Err(StoreError::Closed)), "{revoked:?}");
    let record = binding(world.org, "late");
    let change = tenant.change_binding(bindings::deleted(&record)).await;
    assert!(matches!(change, Err(BindingError::Store(StoreError::Closed))), "{change:?}");
    assert!(matches!(tenant.bindings(BindingFilter::default()).await, Err(StoreError::Closed)));
    assert!(matches!(tenant.binding(record.binding.id).await, Err(StoreError::Closed)));
    assert!(matches!(tenant.binding_named("late").await, Err(StoreError::Closed)));
    let fleet = fleets::fleet(&world, 1);
    let seat = Seat { fleet: fleet.id, index: 0 };
    let made = tenant.create_fleet(fleets::recording(&fleet)).await;
    assert!(matches!(made, Err(CreateError::Store(StoreError::Closed))), "{made:?}");
    assert!(matches!(tenant.repeated_fleet(&repeat).await, Err(CreateError::Store(StoreError::Closed))));
    let member = tenant.create_member(seat, new(&session)).await;
    assert!(matches!(member, Err(MemberError::Store(StoreError::Closed))), "{member:?}");
    assert!(matches!(tenant.change_fleet(fleets::finish(&fleet)).await, Err(StoreError::Closed)));
    assert!(matches!(tenant.fleet(fleet.id).await, Err(StoreError::Closed)));
    assert!(matches!(tenant.fleets(FleetFilter::default()).await, Err(StoreError::Closed)));
    assert!(matches!(tenant.fleet_members(fleets::members_of(fleet.id)).await, Err(StoreError::Closed)));
    assert!(matches!(tenant.fleet_results(fleets::members_of(fleet.id)).await, Err(StoreError::Closed)));
    assert!(matches!(tenant.fleet_task(seat).await, Err(StoreError::Closed)));
    assert!(matches!(tenant.fleet_binding_calls(fleet.id).await, Err(StoreError::Closed)));
    assert!(matches!(system.unfinished_fleets().await, Err(StoreError::Closed)));
    assert!(matches!(system.sealed().await, Err(StoreError::Closed)));
    assert!(matches!(system.unfinished().await, Err(StoreError::Closed)));
    assert!(matches!(system.key(id).await, Err(StoreError::Closed)));
    assert!(matches!(system.ensure_org("late", org_id()).await, Err(StoreError::Closed)));
    assert!(matches!(system.orgs().await, Err(StoreError::Closed)));
    assert!(matches!(system.forget(Old { keys: now(), deliveries: now() }).await, Err(StoreError::Closed)));
    assert!(matches!(system.ping().await, Err(StoreError::Closed)));
}

/// A close in the middle of a hundred writes: each is answered, with success or `Closed`, and success means that it is
/// there.
pub async fn what_was_answered_before_the_close_is_there_afterwards(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let mut writes = JoinSet::new();
    for _ in 0..100 {
        let world = world.clone();
        writes.spawn(async move {
            let session = world.session();
            (session.clone(), world.tenant.create_session(new(&session)).await)
        });
    }
    let first = writes.join_next().await;
    world.store.close().await;
    let reopened = subject.reopen().await;
    let tenant = reopened.tenant(world.org);
    let mut there = 0;
    for done in first.into_iter().chain(writes.join_all().await.into_iter().map(Ok)) {
        let (session, done) = done.expect("no write panics");
        let found = tenant.session(session.id).await.expect("a read").is_some();
        match done {
            Ok(_) => assert!(found, "{} was answered and is lost", session.id),
            Err(CreateError::Store(StoreError::Closed)) => assert!(!found, "{} was refused and is there", session.id),
            Err(other) => panic!("{other:?}"),
        }
        there += u64::from(found);
    }
    assert!(there > 0);
    assert_eq!(verify(&*reopened, world.org).await.expect("the chain verifies").seq, there);
    reopened.close().await;
}
