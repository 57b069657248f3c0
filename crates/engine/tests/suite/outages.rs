//! A store that does not write for a while, or not any more.

use std::{sync::atomic::Ordering, time::Duration};

use backend::{SessionBackend as _, Termination};
use engine::Config;
use futures::StreamExt as _;
use store::Store as _;
use wire::{AuditType, FrameKind, KillReason, Outcome, Phase};

use super::{
    store::Fate,
    support::{PATIENCE, eventually, quick, world, world_with},
};

#[tokio::test]
async fn the_wall_clock_ends_a_program_whose_start_cannot_be_recorded() {
    let world = world().await;
    world.orders.refuse(AuditType::SandboxStarted, Fate::Fails);
    let session = world.start_for("# sim: hang", Duration::from_millis(100)).await;
    world.orders.refused().await;
    let sandbox = world.sandbox().await;
    let ended = tokio::time::timeout(PATIENCE, world.simulator.wait(&sandbox)).await.expect("it is ended");
    assert_eq!(ended.unwrap(), Termination::Killed);
    assert_eq!(world.now(&session).await.phase, Phase::Pending, "nothing was recorded");
    world.orders.allow();
    let (_, result, trail) = world.end_of(&session).await;
    assert_eq!(result.kill_reason, Some(KillReason::WallClockExceeded));
    assert!(trail.contains(&AuditType::SandboxStarted), "{trail:?}");
}

#[tokio::test]
async fn a_cancellation_ends_a_program_whose_start_cannot_be_recorded() {
    let world = world().await;
    world.orders.refuse(AuditType::SandboxStarted, Fate::Hangs);
    let session = world.start("# sim: hang").await;
    world.orders.refused().await;
    let sandbox = world.sandbox().await;
    let (engine, caller) = (world.engine.clone(), world.caller.clone());
    let asked = tokio::spawn(async move { engine.cancel(&caller, session.id).await });
    let ended = tokio::time::timeout(PATIENCE, world.simulator.wait(&sandbox)).await.expect("it is ended");
    assert_eq!(ended.unwrap(), Termination::Killed);
    asked.abort();
}

#[tokio::test]
async fn a_sandbox_is_killed_while_the_exit_of_its_program_cannot_be_recorded() {
    let world = world().await;
    world.orders.refuse(AuditType::WorkloadExited, Fate::Fails);
    let session = world.start("# sim: result 1").await;
    eventually("it is killed", async || world.backend.kills.load(Ordering::SeqCst) > 0).await;
    world.orders.allow();
    let (_, result, _) = world.end_of(&session).await;
    assert_eq!((result.outcome, result.value()), (Outcome::Succeeded, Some(1.into())));
}

#[tokio::test]
async fn residue_that_cannot_be_recorded_is_removed_all_the_same_and_told_later() {
    let world = world().await;
    world.orders.refuse(AuditType::ResidueFound, Fate::Fails);
    world.simulator.failures().residue_next(2);
    let session = world.start("# sim: result 1").await;
    world.engine.result(&world.caller, session.id, PATIENCE).await.unwrap();
    eventually("nothing is left", async || world.standing().await.is_empty()).await;
    assert_eq!(world.now(&session).await.phase, Phase::Succeeded, "the rest is not recorded");
    world.orders.allow();
    let (_, _, trail) = world.end_of(&session).await;
    assert!(trail.ends_with(&[AuditType::ResidueFound, AuditType::SessionTornDown]), "{trail:?}");
}

#[tokio::test]
async fn an_end_that_cannot_be_recorded_before_the_deadline_is_shown_to_nobody() {
    let world = world().await;
    let session = world.start("# sim: hang").await;
    world.running(&session).await;
    let frames = world.engine.stream(&world.caller, session.id, 0).await.unwrap();
    world.orders.refuse(AuditType::WorkloadExited, Fate::Fails);
    world.engine.shutdown(Duration::ZERO).await.unwrap();
    let frames: Vec<_> = tokio::time::timeout(PATIENCE, frames.collect()).await.expect("the stream ends");
    let last = frames.last().unwrap();
    assert_eq!(last.kind, FrameKind::Phase);
    assert!(last.data.contains("running"), "{}", last.data);
    assert_eq!(world.standing().await, [], "its sandbox goes");
}

#[tokio::test]
async fn a_session_that_is_anothers_is_left_alone_and_its_sandbox_removed() {
    for kind in [AuditType::SandboxStarted, AuditType::ResultCollected, AuditType::SessionTornDown] {
        let world = world().await;
        world.orders.refuse(kind, Fate::NotLive);
        let session = world.start_for("# sim: hang", Duration::from_millis(500)).await;
        let told = world.frames_of(&session).await;
        assert!(told.iter().all(|frame| frame.kind != FrameKind::End), "{kind:?}");
        eventually("nothing is left", async || world.standing().await.is_empty()).await;
        let row = world.store.tenant(session.org_id).session(session.id).await.unwrap().unwrap();
        assert_eq!(world.now(&session).await, row, "{kind:?}");
    }
}

#[tokio::test]
async fn a_drain_has_an_end_although_a_write_hangs() {
    let world = world_with(Config { call_patience: Duration::from_millis(200), ..quick() }).await;
    let session = world.start("# sim: hang").await;
    world.running(&session).await;
    world.orders.refuse(AuditType::WorkloadExited, Fate::Hangs);
    tokio::time::timeout(PATIENCE, world.engine.shutdown(Duration::ZERO)).await.expect("the drain ends").unwrap();
    assert_eq!(world.standing().await, []);
}
