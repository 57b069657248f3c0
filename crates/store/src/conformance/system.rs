//! The handle across orgs.

use std::collections::BTreeSet;

use tokio::task::JoinSet;
use wire::Phase;

use super::{
    Subject,
    support::{World, org_id},
};

pub async fn unfinished_lists_exactly_what_is_not_torn_down(subject: &dyn Subject) {
    let mut expected = BTreeSet::new();
    let mut system = subject.store().system();
    assert!(system.unfinished().await.expect("a read").is_empty());
    for _ in 0..2 {
        let world = World::new(subject).await;
        expected.insert(world.created().await.id);
        for phase in [Phase::Running, Phase::Paused, Phase::Succeeded, Phase::Failed, Phase::Killed] {
            let session = world.created().await;
            expected.insert(world.moved(&session, phase).await.id);
        }
        let (straight, late) = (world.created().await, world.created().await);
        world.moved(&straight, Phase::TornDown).await;
        world.moved(&late, Phase::Killed).await;
        world.moved(&late, Phase::TornDown).await;
        system = world.system;
    }
    let unfinished = system.unfinished().await.expect("a read");
    assert_eq!(unfinished.len(), expected.len(), "each once");
    assert_eq!(unfinished.iter().map(|unfinished| unfinished.session.id).collect::<BTreeSet<_>>(), expected);
}

pub async fn an_org_is_made_once_per_name(subject: &dyn Subject) {
    let system = subject.store().system();
    let mut tasks = JoinSet::new();
    for number in 0..20 {
        let system = system.clone();
        let name = format!("org-{}", number % 2);
        tasks.spawn(async move { system.ensure_org(&name, org_id()).await });
    }
    let mut made = BTreeSet::new();
    while let Some(org) = tasks.join_next().await {
        let org = org.expect("no task panics").expect("an org is made");
        made.insert((org.name, org.id));
    }
    assert_eq!(made.len(), 2, "{made:?}");
    let listed: BTreeSet<_> = system.orgs().await.expect("a read").into_iter().map(|org| (org.name, org.id)).collect();
    assert_eq!(listed, made);
}

pub async fn an_org_id_that_is_taken_fails_alone(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let mut tasks = JoinSet::new();
    for number in 0..16 {
        let (system, taken) = (world.system.clone(), world.org);
        tasks.spawn(async move { (true, system.ensure_org(&format!("thief-{number}"), taken).await.is_err()) });
        let world = world.clone();
        tasks.spawn(async move {
            (false, world.tenant.create_session(super::support::new(&world.session())).await.is_err())
        });
    }
    while let Some(done) = tasks.join_next().await {
        let (expected, failed) = done.expect("no task panics");
        assert_eq!(failed, expected);
    }
    assert_eq!(world.system.orgs().await.expect("a read").len(), 1);
    assert_eq!(world.verified().await, 16);
}

pub async fn the_database_answers(subject: &dyn Subject) {
    subject.store().system().ping().await.expect("an answer");
}
