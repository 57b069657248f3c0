//! API keys.

use tokio::task::JoinSet;
use wire::{AuditType, Role, Scope};

use super::{
    Subject,
    support::{World, key, key_draft, kinds},
};
use crate::AuditFilter;

pub async fn keys_are_listed_newest_first_with_the_revoked_ones(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let mut keys = Vec::new();
    for (role, scopes) in [
        (Role::Viewer, None),
        (Role::Developer, Some(vec![Scope::SessionsRead])),
        (Role::Admin, Some(Vec::new())),
        (Role::Owner, Some(Scope::ALL.to_vec())),
    ] {
        let (mut record, created) = key(world.org, role.as_str());
        (record.role, record.scopes) = (role, scopes);
        world.tenant.create_key(record.clone(), created).await.expect("a key is recorded");
        keys.push(record);
    }
    keys.reverse();
    let revoked = key_draft(AuditType::KeyRevoked, keys[1].id);
    assert!(world.tenant.revoke_key(keys[1].id, revoked.clone()).await.expect("a write"));
    keys[1].revoked_at = Some(revoked.ts);
    assert_eq!(world.tenant.keys().await.expect("a read"), keys);
    for key in keys {
        assert_eq!(world.system.key(key.id).await.expect("a read"), Some(key), "revoked ones too");
    }
    let log = world.tenant.audit(AuditFilter { session: None, after_seq: 0, limit: 10 }).await.expect("a read");
    let made = AuditType::KeyCreated;
    assert_eq!(kinds(&log), [made, made, made, made, AuditType::KeyRevoked]);
}

pub async fn a_key_is_revoked_once(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let (record, created) = key(world.org, "key");
    let id = record.id;
    world.tenant.create_key(record, created).await.expect("a key is recorded");
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let tenant = world.tenant.clone();
        tasks.spawn(async move { tenant.revoke_key(id, key_draft(AuditType::KeyRevoked, id)).await });
    }
    let mut revoked = 0;
    while let Some(done) = tasks.join_next().await {
        revoked += u32::from(done.expect("no task panics").expect("a write"));
    }
    assert_eq!(revoked, 1);
    let never = super::support::key_id();
    assert!(!world.tenant.revoke_key(never, key_draft(AuditType::KeyRevoked, never)).await.expect("a write"));
    assert_eq!(world.verified().await, 2);
}

pub async fn a_key_id_that_is_taken_fails_alone(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let (first, created) = key(world.org, "first");
    world.tenant.create_key(first.clone(), created.clone()).await.expect("a key is recorded");
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let mut again = first.clone();
        "second".clone_into(&mut again.name);
        let (tenant, draft) = (world.tenant.clone(), created.clone());
        tasks.spawn(async move { (true, tenant.create_key(again, draft).await) });
        let (other, draft) = key(world.org, "other");
        let tenant = world.tenant.clone();
        tasks.spawn(async move { (false, tenant.create_key(other, draft).await) });
    }
    while let Some(done) = tasks.join_next().await {
        let (taken, done) = done.expect("no task panics");
        assert_eq!(done.is_err(), taken, "{done:?}");
    }
    assert_eq!(world.system.key(first.id).await.expect("a read"), Some(first));
    assert_eq!(world.tenant.keys().await.expect("a read").len(), 17);
    assert_eq!(world.verified().await, 17);
}
