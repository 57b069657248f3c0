//! What the next server makes of what an earlier one left.

use std::{sync::Arc, time::Duration};

use backend::{SessionBackend as _, simulator::Simulator};
use engine::{Config, Engine};
use futures::StreamExt as _;
use wire::{AuditType, FaultCode, FrameKind, Phase, Session};

use super::{
    backend::Wrapped,
    support::{World, eventually, quick, world, world_with},
};

/// One try to remove what is left, before the first session.
fn hasty() -> Config {
    Config { sweep_patience: Duration::ZERO, ..quick() }
}

async fn phase(engine: &Engine, world: &World, session: &Session) -> Phase {
    let session = engine.session(&world.caller, session.id).await.unwrap();
    assert_eq!(session.fault.unwrap().code, FaultCode::ServerRestarted);
    session.phase
}

#[tokio::test]
async fn what_an_earlier_process_left_is_ended_and_removed_before_the_first_session() {
    let world = world().await;
    let running = world.start("# sim: hang").await;
    world.running(&running).await;
    let restarted = world.restarted(Config::default(), world.backend.clone()).await;
    let session = restarted.session(&world.caller, running.id).await.unwrap();
    assert_eq!(session.phase, Phase::TornDown);
    assert_eq!(session.fault.unwrap().code, FaultCode::ServerRestarted);
    assert_eq!(world.standing().await, []);
    let frames: Vec<_> = restarted.stream(&world.caller, running.id, 0).await.unwrap().collect().await;
    assert_eq!(frames.last().unwrap().kind, FrameKind::End);
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_removed_holds_up_its_own_session_until_it_can() {
    let world = world().await;
    let (stuck, other) = (world.start("# sim: hang").await, world.start("# sim: hang").await);
    world.running(&stuck).await;
    world.running(&other).await;
    let sandbox = world.recorded_sandbox(&stuck).await;
    world.backend.stubborn.lock().unwrap().insert(sandbox.clone());
    let restarted = world.restarted(hasty(), world.backend.clone()).await;
    assert_eq!(phase(&restarted, &world, &other).await, Phase::TornDown);
    assert_eq!(phase(&restarted, &world, &stuck).await, Phase::Failed);
    assert_eq!(world.standing().await, [sandbox]);

    world.backend.stubborn.lock().unwrap().clear();
    eventually("it is torn down", async || phase(&restarted, &world, &stuck).await == Phase::TornDown).await;
    assert_eq!(world.standing().await, []);
    let trail = restarted.audit(&world.caller, stuck.id, 0, 100).await.unwrap().items;
    let told = trail.iter().filter(|event| event.kind == AuditType::SessionTornDown);
    assert_eq!(told.count(), 1);
}

#[tokio::test]
async fn a_session_without_a_recorded_sandbox_waits_for_those_that_are_nobodys() {
    let world = world_with(Config { max_concurrency: 1, ..quick() }).await;
    let (running, queued) = (world.start("# sim: hang").await, world.start("# sim: hang").await);
    world.running(&running).await;
    let shape = backend::Shape {
        image: "default".into(),
        language: wire::Language::Python,
        disk_bytes: 1 << 20,
        egress: false,
    };
    let booting = world.simulator.prepare(&shape).await.unwrap().id;
    world.backend.stubborn.lock().unwrap().insert(booting.clone());
    let restarted = world.restarted(hasty(), world.backend.clone()).await;
    assert_eq!(phase(&restarted, &world, &running).await, Phase::TornDown);
    assert_eq!(phase(&restarted, &world, &queued).await, Phase::Failed);
    world.backend.stubborn.lock().unwrap().clear();
    eventually("it is torn down", async || phase(&restarted, &world, &queued).await == Phase::TornDown).await;
}

#[tokio::test]
async fn a_session_of_a_backend_that_is_not_here_does_not_count_as_torn_down() {
    let world = world().await;
    let session = world.start("# sim: hang").await;
    world.running(&session).await;
    let other = Arc::new(Wrapped::new(Arc::new(Simulator::default()), "other"));
    let restarted = world.restarted(quick(), other.clone()).await;
    assert_eq!(phase(&restarted, &world, &session).await, Phase::Failed);
    let seen = other.lists();
    eventually("the reaper has looked", async || other.lists() > seen + 2).await;
    assert_eq!(phase(&restarted, &world, &session).await, Phase::Failed);
}
