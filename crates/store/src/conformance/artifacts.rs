//! Recording artifacts, and letting go of them.

use wire::{Artifact, Phase, Timestamp};

use super::{
    Subject,
    support::{World, now, session_id, update},
};

fn artifact(path: &str, size: u64) -> Artifact {
    Artifact { path: path.into(), size, sha256: format!("{size:064x}") }
}

/// A session that has left these, at so many milliseconds.
async fn left(world: &World, artifacts: &[Artifact], ms: i64) -> wire::SessionId {
    let session = world.created().await;
    let mut update = update(&session, Phase::Succeeded);
    update.session.finished_at = Some(Timestamp::from_millis(ms));
    update.artifacts = artifacts.to_vec();
    world.tenant.update_session(update).await.expect("a live session is updated");
    session.id
}

pub async fn artifacts_are_recorded_with_the_end_and_found_by_path(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let given = [artifact("b/ä", 5), artifact("a", u64::from(u32::MAX) + 1)];
    let id = left(&world, &given, now().as_millis()).await;
    let found = world.tenant.artifacts(id).await.expect("a read");
    let listed: Vec<_> = found.iter().map(|kept| (kept.artifact.clone(), kept.number)).collect();
    assert_eq!(listed, [(given[1].clone(), 1), (given[0].clone(), 0)]);
    let one = world.tenant.artifact(id, "b/ä").await.expect("a read").expect("it is there");
    assert_eq!((one.artifact, one.number), (given[0].clone(), 0));
    assert_eq!(world.tenant.artifact(id, "b").await.expect("a read"), None);
    assert_eq!(world.tenant.artifacts(session_id()).await.expect("a read"), []);
    assert!(world.system.has_artifacts(id).await.expect("a read"));
    assert!(!world.system.has_artifacts(session_id()).await.expect("a read"));
}

pub async fn no_org_reaches_anothers_artifacts(subject: &dyn Subject) {
    let (world, other) = (World::new(subject).await, World::new(subject).await);
    let id = left(&world, &[artifact("a", 1)], now().as_millis()).await;
    assert_eq!(other.tenant.artifacts(id).await.expect("a read"), []);
    assert_eq!(other.tenant.artifact(id, "a").await.expect("a read"), None);
    other.tenant.forget_artifacts(id).await.expect("nothing to forget");
    assert_eq!(world.tenant.artifacts(id).await.expect("a read").len(), 1);
}

pub async fn old_artifacts_and_those_over_a_quota_are_told_oldest_first(subject: &dyn Subject) {
    let (world, other) = (World::new(subject).await, World::new(subject).await);
    let start = now().as_millis();
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(left(&world, &[artifact("a", 60), artifact("b", 40)], start + n).await);
    }
    let only = left(&other, &[artifact("a", 400)], start).await;
    let surplus = async |before: i64, quota: u64| {
        let told = world.system.surplus_artifacts(Timestamp::from_millis(before), quota).await.expect("a read");
        // Other tests share the database.
        told.into_iter().filter(|(org, _)| [world.org, other.org].contains(org)).map(|(_, id)| id).collect::<Vec<_>>()
    };
    assert_eq!(surplus(start, 400).await, []);
    let old = surplus(start + 2, 1000).await;
    assert_eq!(old.len(), 3, "{old:?}");
    assert!(old[..2].contains(&ids[0]) && old[..2].contains(&only) && old[2] == ids[1], "{old:?}");
    assert_eq!(surplus(start, 399).await.len(), 2);
    assert_eq!(surplus(start, 250).await.iter().filter(|id| **id != only).copied().collect::<Vec<_>>(), ids[..2]);
    world.tenant.forget_artifacts(ids[0]).await.expect("forgets");
    assert_eq!(world.tenant.artifacts(ids[0]).await.expect("a read"), []);
    assert!(!world.system.has_artifacts(ids[0]).await.expect("a read"));
    assert_eq!(surplus(start, 250).await.iter().filter(|id| **id != only).copied().collect::<Vec<_>>(), ids[1..2]);
}
