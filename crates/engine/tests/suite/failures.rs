//! Steps of a backend that fail, hang, or leave something.

use std::time::Duration;

use backend::{SessionBackend as _, simulator::Step};
use engine::Config;
use futures::future::join_all;
use wire::{AuditType, FaultCode, KillReason, Outcome, Phase};

use super::support::{PATIENCE, eventually, quick, world, world_with};

/// What a call of a backend may take here.
const CALL: Duration = Duration::from_secs(1);
const NEVER: Duration = Duration::from_hours(1);

fn impatient() -> Config {
    Config { boot_patience: CALL, call_patience: CALL, orphan_patience: CALL, ..quick() }
}

#[tokio::test]
async fn a_failure_at_any_step_is_told_as_ours_and_leaves_nothing() {
    for (step, code) in [
        (Step::Prepare, Some(FaultCode::SandboxFailed)),
        (Step::Handshake, Some(FaultCode::SandboxFailed)),
        (Step::Assign, Some(FaultCode::SandboxFailed)),
        (Step::Wait, Some(FaultCode::SandboxLost)),
        (Step::Observe, None),
        (Step::Kill, None),
        (Step::Destroy, None),
        (Step::List, None),
    ] {
        let world = world().await;
        // A boot is tried twice.
        world.simulator.failures().fail_next(step, if matches!(step, Step::Prepare | Step::Handshake) { 2 } else { 1 });
        let (_, result, _) = world.run("# sim: result 1").await;
        assert_eq!(result.fault.map(|fault| fault.code), code, "{step:?}");
        let (_, result, _) = world.run("# sim: result 2").await;
        assert_eq!(result.value(), Some(2.into()), "the next session after {step:?}");
        world.simulator.failures().clear();
        world.engine.shutdown(PATIENCE).await.unwrap();
        let left = world.standing().await;
        assert!(left.is_empty(), "{left:?} after {step:?}");
    }
}

#[tokio::test]
async fn a_boot_that_fails_once_is_nothing_that_a_caller_notices() {
    let world = world().await;
    for step in [Step::Prepare, Step::Handshake] {
        world.simulator.failures().fail_next(step, 1);
        let (_, result, _) = world.run("# sim: result 1").await;
        assert_eq!(result.value(), Some(1.into()), "{step:?}: {:?}", result.fault);
    }
    world.engine.shutdown(PATIENCE).await.unwrap();
    assert_eq!(world.standing().await, []);
}

#[tokio::test]
async fn residue_is_audited_and_removed_before_the_session_counts_as_torn_down() {
    let world = world().await;
    world.simulator.failures().residue_next(2);
    let (_, _, trail) = world.run("# sim: result 1").await;
    let found = trail.iter().position(|kind| *kind == AuditType::ResidueFound).unwrap();
    let gone = trail.iter().position(|kind| *kind == AuditType::SessionTornDown).unwrap();
    assert!(found < gone);
}

#[tokio::test]
async fn a_step_that_hangs_is_given_up_and_leaves_nothing() {
    let cases = [
        (Step::Prepare, Some(FaultCode::SandboxFailed)),
        (Step::Handshake, Some(FaultCode::SandboxFailed)),
        (Step::Assign, Some(FaultCode::SandboxFailed)),
        (Step::Wait, None),
        (Step::Observe, None),
        (Step::Kill, None),
        (Step::Destroy, None),
        (Step::List, None),
    ];
    join_all(cases.map(|(step, code)| async move {
        let world = world_with(impatient()).await;
        world.simulator.failures().hang_next(step);
        let session = world.start_for("# sim: hang", Duration::from_millis(50)).await;
        let (_, result, _) = world.end_of(&session).await;
        let reason = code.is_none().then_some(KillReason::WallClockExceeded);
        assert_eq!((result.fault.map(|fault| fault.code), result.kill_reason), (code, reason), "{step:?}");
        assert_eq!(world.standing().await, [], "after {step:?}");
        let (_, result, _) = world.run("# sim: result 2").await;
        assert_eq!(result.value(), Some(2.into()), "the next session after {step:?}");
        world.engine.shutdown(PATIENCE).await.unwrap();
    }))
    .await;
}

#[tokio::test]
async fn readiness_is_told_of_a_backend_that_hangs() {
    let world = world_with(Config { call_patience: CALL, reap_interval: NEVER, ..Config::default() }).await;
    // The reaper's first look is at once.
    eventually("the reaper has looked", async || world.backend.lists() > 2).await;
    world.simulator.failures().hang_next(Step::List);
    let told = tokio::time::timeout(PATIENCE, world.engine.readiness()).await.unwrap();
    assert!(!told.backends[0].reachable);
}

#[tokio::test]
async fn a_boot_that_hangs_can_be_cancelled() {
    let world = world_with(Config { boot_patience: NEVER, ..impatient() }).await;
    for step in [Step::Prepare, Step::Assign] {
        world.simulator.failures().hang_next(step);
        let session = world.start("# sim: hang").await;
        let cancelled = world.engine.cancel(&world.caller, session.id).await.unwrap();
        assert_eq!((cancelled.outcome, cancelled.phase), (Some(Outcome::Cancelled), Phase::TornDown), "{step:?}");
    }
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_boot_that_hangs() {
    let world = world_with(Config { boot_patience: NEVER, ..impatient() }).await;
    world.simulator.failures().hang_next(Step::Prepare);
    let session = world.start("# sim: hang").await;
    tokio::time::timeout(PATIENCE, world.engine.shutdown(Duration::ZERO)).await.unwrap().unwrap();
    let ended = world.now(&session).await;
    assert_eq!(ended.fault.unwrap().code, FaultCode::ServerDrained);
    assert_eq!(ended.phase, Phase::TornDown);
}

#[tokio::test]
async fn a_drain_that_leaves_something_says_so() {
    let world = world_with(Config { sweep_patience: CALL, ..quick() }).await;
    let session = world.start("# sim: hang").await;
    world.running(&session).await;
    world.simulator.failures().residue_next(u32::MAX);
    let left = tokio::time::timeout(PATIENCE, world.engine.shutdown(Duration::ZERO)).await.unwrap();
    assert!(matches!(left, Err(engine::ShutdownError::Left { sandboxes: 1 })), "{left:?}");
}

#[tokio::test]
async fn after_a_boot_that_was_given_up_nothing_counts_as_torn_down_while_it_may_stand() {
    let world = world_with(Config { boot_patience: CALL, orphan_patience: NEVER, ..quick() }).await;
    world.simulator.failures().hang_next(Step::Handshake);
    let session = world.start("# sim: result 1").await;
    world.engine.result(&world.caller, session.id, PATIENCE).await.unwrap();
    let seen = world.backend.lists();
    // Its place is free, and looks at what stands do not make it go.
    world.run("# sim: result 2").await;
    eventually("it was looked for", async || world.backend.lists() > seen + 4).await;
    assert_eq!(world.now(&session).await.phase, Phase::Failed);
    let stray = world.sandbox().await;
    assert!(world.simulator.destroy(&stray).await.unwrap().is_none());
    let (_, result, _) = world.end_of(&session).await;
    assert_eq!(result.fault.unwrap().code, FaultCode::SandboxFailed);
}

#[tokio::test]
async fn what_a_failed_boot_leaves_is_reclaimed_like_any_sandbox() {
    let world = world().await;
    world.simulator.failures().fail_next(Step::Handshake, 1);
    world.simulator.failures().residue_next(2);
    let (_, result, trail) = world.run("# sim: result 1").await;
    assert_eq!(result.fault.unwrap().code, FaultCode::SandboxFailed);
    assert!(trail.contains(&AuditType::ResidueFound), "{trail:?}");
    assert_eq!(world.standing().await, []);
}

#[tokio::test]
async fn residue_is_audited_once_whenever_it_shows() {
    let world = world().await;
    world.simulator.failures().fail_next(Step::Destroy, 1);
    world.simulator.failures().residue_next(2);
    let (_, _, trail) = world.run("# sim: result 1").await;
    assert_eq!(trail.iter().filter(|kind| **kind == AuditType::ResidueFound).count(), 1, "{trail:?}");
}

#[tokio::test]
async fn an_orphan_is_removed_although_every_second_look_fails() {
    let world = world_with(Config { orphan_patience: Duration::from_millis(200), ..quick() }).await;
    world.backend.list_badly();
    let shape = backend::Shape {
        image: "default".into(),
        language: wire::Language::Python,
        disk_bytes: 1 << 20,
        egress: false,
    };
    let _orphan = world.simulator.prepare(&shape).await.unwrap();
    eventually("the orphan is gone", async || world.standing().await.is_empty()).await;
}
