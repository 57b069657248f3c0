//! The simulator fails as it is told, where it is told, and no longer than it is told.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{sync::Arc, time::Duration};

use backend::{
    AssignError, DestroyError, ObserveError, PrepareError, Prepared, Sandbox, SandboxSpec, SessionBackend, Shape,
    Termination,
    channel::ChannelError,
    simulator::{FailurePlan, Simulator, SimulatorConfig, Step},
};
use futures::FutureExt;
use model::{Language, limits::Limits};
use protocol::{GuestFrame, HostFrame, Start};
use tokio::time::timeout;

fn simulator() -> (Arc<Simulator>, FailurePlan) {
    let failures = FailurePlan::default();
    let config = SimulatorConfig { failures: failures.clone(), ..SimulatorConfig::default() };
    (Arc::new(Simulator::new(config)), failures)
}

fn shape() -> Shape {
    Shape { image: "default".into(), language: Language::Python, disk_bytes: 1 << 20, egress: false }
}

fn spec() -> SandboxSpec {
    SandboxSpec { limits: Limits::default(), gateway: None, grace: Duration::ZERO }
}

async fn prepared(simulator: &Simulator) -> Prepared {
    simulator.prepare(&shape()).await.unwrap()
}

async fn started(simulator: &Simulator, code: &str) -> (Sandbox, Start) {
    let prepared = prepared(simulator).await;
    let start = Start {
        session_id: "ses_1".into(),
        language: protocol::Language::Python,
        code: code.into(),
        args: Vec::new(),
        env: Vec::new(),
        pids: 128,
        output_bytes: 1 << 20,
        disk_bytes: 1 << 30,
        entrypoint: None,
        interactive: false,
        stays: false,
    };
    (simulator.assign(prepared, &spec()).await.unwrap(), start)
}

#[tokio::test(start_paused = true)]
async fn every_step_fails_as_often_as_ordered_and_then_works() {
    let (simulator, failures) = simulator();
    failures.fail_next(Step::Prepare, 2);
    for _ in 0..2 {
        assert!(matches!(simulator.prepare(&shape()).await, Err(PrepareError::Setup { .. })));
    }
    failures.fail_next(Step::Handshake, 1);
    let refused = simulator.prepare(&shape()).await;
    assert!(matches!(refused, Err(PrepareError::Handshake(ChannelError::Closed))), "{refused:?}");
    assert_eq!(simulator.list().await.unwrap(), []);

    let first = prepared(&simulator).await;
    let id = first.id.clone();
    failures.fail_next(Step::Assign, 1);
    assert!(matches!(simulator.assign(first, &spec()).await, Err(AssignError::Limit { .. })));
    for step in [Step::Wait, Step::Observe, Step::Kill, Step::Destroy, Step::List] {
        failures.fail_next(step, 1);
    }
    assert!(matches!(simulator.wait(&id).await, Err(ObserveError::Unreachable { .. })));
    assert!(matches!(simulator.observe(&id).await, Err(ObserveError::Unreachable { .. })));
    assert!(matches!(simulator.kill(&id).await, Err(ObserveError::Unreachable { .. })));
    assert!(matches!(simulator.destroy(&id).await, Err(DestroyError::Failed { .. })));
    assert!(matches!(simulator.list().await, Err(ObserveError::Unreachable { .. })));

    // The channel went with the failed assignment, and the runner with the channel.
    assert_eq!(simulator.wait(&id).await.unwrap(), Termination::Exited);
    simulator.observe(&id).await.unwrap();
    simulator.kill(&id).await.unwrap();
    assert_eq!(simulator.list().await.unwrap(), std::slice::from_ref(&id));
    assert!(simulator.destroy(&id).await.unwrap().is_none());
    assert_eq!(simulator.list().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_step_never_comes_back_and_can_be_dropped() {
    let (simulator, failures) = simulator();
    let hour = Duration::from_hours(1);
    failures.hang_next(Step::Prepare);
    assert!(timeout(hour, simulator.prepare(&shape())).await.is_err());
    let first = prepared(&simulator).await;
    let id = first.id.clone();
    failures.hang_next(Step::Assign);
    assert!(timeout(hour, simulator.assign(first, &spec())).await.is_err());
    for step in [Step::Wait, Step::Kill, Step::Destroy, Step::List] {
        failures.hang_next(step);
    }
    assert!(timeout(hour, simulator.wait(&id)).await.is_err());
    assert!(timeout(hour, simulator.kill(&id)).await.is_err());
    assert!(timeout(hour, simulator.destroy(&id)).await.is_err());
    assert!(timeout(hour, simulator.list()).await.is_err());
    assert!(simulator.destroy(&id).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_stays_silent_is_given_up_and_leaves_nothing() {
    let (simulator, failures) = simulator();
    failures.hang_next(Step::Handshake);
    let refused = simulator.prepare(&shape()).await;
    assert!(matches!(refused, Err(PrepareError::Handshake(ChannelError::Silent(_)))), "{refused:?}");
    assert_eq!(simulator.list().await.unwrap(), []);
    // Dropped in the middle, it is an orphan that is listed.
    failures.hang_next(Step::Handshake);
    assert!(timeout(Duration::from_secs(1), simulator.prepare(&shape())).await.is_err());
    let [orphan] = &simulator.list().await.unwrap()[..] else { panic!("not one orphan") };
    assert!(simulator.destroy(orphan).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn residue_is_reported_as_often_as_ordered_while_the_sandbox_stays_listed() {
    let (simulator, failures) = simulator();
    let id = prepared(&simulator).await.id;
    failures.residue_next(2);
    for _ in 0..2 {
        assert!(!simulator.destroy(&id).await.unwrap().is_none());
        assert_eq!(simulator.list().await.unwrap(), std::slice::from_ref(&id));
        assert_eq!(simulator.wait(&id).await.unwrap(), Termination::Killed);
    }
    assert!(simulator.destroy(&id).await.unwrap().is_none());
    assert_eq!(simulator.list().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_failed_boot_that_leaves_something_says_of_which_sandbox() {
    let (simulator, failures) = simulator();
    failures.fail_next(Step::Handshake, 1);
    failures.residue_next(1);
    let refused = simulator.prepare(&shape()).await.unwrap_err();
    let left = refused.left().unwrap();
    assert!(matches!(&refused, PrepareError::Left { source, .. } if matches!(**source, PrepareError::Handshake(_))));
    assert_eq!(simulator.list().await.unwrap(), std::slice::from_ref(left));
    assert!(simulator.destroy(left).await.unwrap().is_none());
    assert_eq!(simulator.list().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_runner_dies_after_exactly_so_many_frames() {
    let (simulator, failures) = simulator();
    failures.die_after_frames(0);
    assert!(matches!(simulator.prepare(&shape()).await, Err(PrepareError::Handshake(ChannelError::Closed))));
    failures.die_after_frames(1);
    let gone = prepared(&simulator).await;
    let id = gone.id.clone();
    assert!(matches!(simulator.assign(gone, &spec()).await, Err(AssignError::Gone(_))));
    assert_eq!(simulator.wait(&id).await.unwrap(), Termination::Exited);

    // Hello, started, two outputs, a result and the exit: the last one is never sent.
    let code = "# sim: stdout a\n# sim: stderr b\n# sim: result 1";
    for frames in 2..=6 {
        failures.die_after_frames(frames);
        let (sandbox, start) = started(&simulator, code).await;
        let (mut sender, mut receiver) = sandbox.channel.assign("ses_1");
        sender.send(&HostFrame::Start(Box::new(start))).await.unwrap();
        let mut seen = 1;
        let mut exited = false;
        while let Some(frame) = receiver.next().await.unwrap() {
            seen += 1;
            exited |= matches!(frame, GuestFrame::Exited { .. });
        }
        assert_eq!((seen, exited), (frames, frames == 6));
        assert_eq!(simulator.wait(&sandbox.id).await.unwrap(), Termination::Exited);
    }
    failures.clear();
    prepared(&simulator).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_sandboxes_are_listed_ended_and_removable() {
    let (simulator, _) = simulator();
    let (sandbox, start) = started(&simulator, "# sim: hang").await;
    let (mut sender, mut receiver) = sandbox.channel.assign("ses_1");
    sender.send(&HostFrame::Start(Box::new(start))).await.unwrap();
    let idle = prepared(&simulator).await;
    assert!(matches!(receiver.next().await.unwrap(), Some(GuestFrame::Started { .. })));
    assert!(simulator.wait(&sandbox.id).now_or_never().is_none());

    simulator.crash();
    assert!(receiver.next().await.unwrap().is_none());
    let listed = simulator.list().await.unwrap();
    assert_eq!(listed.len(), 2);
    for id in [&sandbox.id, &idle.id] {
        assert!(listed.contains(id));
        assert_eq!(simulator.wait(id).await.unwrap(), Termination::Exited);
        assert!(simulator.destroy(id).await.unwrap().is_none());
    }
    assert_eq!(simulator.list().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn no_more_sandboxes_are_made_than_may_exist() {
    let config = SimulatorConfig { max_sandboxes: 2, ..SimulatorConfig::default() };
    let simulator = Simulator::new(config);
    let first = prepared(&simulator).await;
    let _second = prepared(&simulator).await;
    assert!(matches!(simulator.prepare(&shape()).await, Err(PrepareError::Setup { .. })));
    simulator.destroy(&first.id).await.unwrap();
    prepared(&simulator).await;
}
