//! The engine over the simulator and a real store: every end that a session can have, told once and truthfully.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{sync::Arc, time::Duration};

use backend::simulator::{Simulator, SimulatorConfig, Step};
use engine::{Clock, Config, CreateError, CreateRequest, Engine, Ids, Parts, Pepper, Profile, ResultError};
use futures::StreamExt;
use model::access::{Caller, Subject};
use store::{Store, sqlite::Sqlite};
use wire::{AuditType, CreateSession, FaultCode, FrameKind, KillReason, Outcome, Phase, Role, Session, SessionResult};

const PATIENCE: Duration = Duration::from_secs(30);

struct World {
    engine: Engine,
    simulator: Arc<Simulator>,
    store: Sqlite,
    folder: tempfile::TempDir,
    caller: Caller,
}

async fn world() -> World {
    world_with(Config { reap_interval: Duration::from_millis(50), ..Config::default() }).await
}

async fn world_with(config: Config) -> World {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("engine.db")).await.unwrap();
    let simulator = Arc::new(Simulator::new(SimulatorConfig::default()));
    let parts = Parts {
        store: Arc::new(store.clone()),
        backends: vec![simulator.clone()],
        clock: Clock::System,
        ids: Ids::from_os(),
        pepper: Pepper::new([7; 32]),
    };
    let engine = Engine::start(Config { profile: Profile::Dev, ..config }, parts).await.unwrap();
    let caller = engine.authenticate(None).await.unwrap();
    World { engine, simulator, store, folder, caller }
}

fn request(script: &str) -> CreateRequest {
    let request = CreateSession { code: Some(script.to_owned()), ..CreateSession::default() };
    CreateRequest { request, shape_faults: Vec::new(), idempotency: None }
}

impl World {
    async fn start(&self, script: &str) -> Session {
        self.engine.create(&self.caller, request(script)).await.unwrap()
    }

    /// Runs to the end: the session when it is torn down, its result, and its audit trail.
    async fn run(&self, script: &str) -> (Session, SessionResult, Vec<AuditType>) {
        let session = self.start(script).await;
        self.end_of(&session).await
    }

    async fn end_of(&self, session: &Session) -> (Session, SessionResult, Vec<AuditType>) {
        let frames = self.engine.stream(&self.caller, session.id, 0).await.unwrap();
        let frames = tokio::time::timeout(PATIENCE, frames.collect::<Vec<_>>()).await.expect("the session ends");
        assert_eq!(frames.last().unwrap().kind, FrameKind::End);
        let numbers: Vec<u64> = frames.iter().map(|frame| frame.seq).collect();
        assert_eq!(numbers, (1..=u64::try_from(frames.len()).unwrap()).collect::<Vec<_>>());
        let result = self.engine.result(&self.caller, session.id, Duration::ZERO).await.unwrap();
        let trail = self.engine.audit(&self.caller, session.id, 0, 100).await.unwrap();
        let session = self.engine.session(&self.caller, session.id).await.unwrap();
        assert_eq!(session.phase, Phase::TornDown);
        assert_eq!(session.outcome, Some(result.outcome));
        store::verify(&self.store, session.org_id).await.unwrap();
        (session, result, trail.items.iter().map(|event| event.kind).collect())
    }

    /// Waits until the session runs.
    async fn running(&self, session: &Session) {
        let mut frames = self.engine.stream(&self.caller, session.id, 0).await.unwrap();
        let running = async {
            while let Some(frame) = frames.next().await {
                if frame.kind == FrameKind::Phase && frame.data.contains("running") {
                    return;
                }
            }
            panic!("it ended before it ran");
        };
        tokio::time::timeout(PATIENCE, running).await.unwrap();
    }
}

#[tokio::test]
async fn a_clean_run_reads_as_the_contract_says() {
    let world = world().await;
    let (session, result, trail) = world.run("# sim: stdout hello\\n\n# sim: result {\"a\": [1, 2]}").await;
    assert_eq!(
        trail,
        [
            AuditType::SessionCreated,
            AuditType::SandboxProvisioned,
            AuditType::SandboxStarted,
            AuditType::WorkloadExited,
            AuditType::ResultCollected,
            AuditType::SessionTornDown,
        ]
    );
    assert_eq!((result.outcome, result.exit_code), (Outcome::Succeeded, Some(0)));
    assert_eq!(result.stdout_tail, "hello\n");
    assert_eq!(result.result, Some(serde_json::json!({"a": [1, 2]})));
    assert!(session.started_at.is_some() && session.finished_at.is_some() && session.torn_down_at.is_some());
}

#[tokio::test]
async fn each_limit_kills_with_its_own_reason() {
    let world = world().await;
    for (script, reason) in [
        ("# sim: memory 64GiB", KillReason::MemoryExceeded),
        ("# sim: disk 64GiB", KillReason::DiskExceeded),
        ("# sim: fork 100000", KillReason::PidsExceeded),
        ("# sim: output 64MiB", KillReason::OutputExceeded),
    ] {
        let (_, result, trail) = world.run(script).await;
        assert_eq!((result.outcome, result.kill_reason), (Outcome::Killed, Some(reason)), "{script}");
        assert_eq!(result.exit_code, None);
        assert!(trail.contains(&AuditType::QuotaKilled) && !trail.contains(&AuditType::WorkloadExited), "{trail:?}");
    }
    for (script, limits, reason) in [
        ("# sim: hang", wire::Limits { wall_clock_ms: Some(50), ..Default::default() }, KillReason::WallClockExceeded),
        ("# sim: cpu 1000s", wire::Limits { cpu_time_ms: Some(50), ..Default::default() }, KillReason::CpuExceeded),
    ] {
        let mut asked = request(script);
        asked.request.limits = limits;
        let session = world.engine.create(&world.caller, asked).await.unwrap();
        let (_, result, _) = world.end_of(&session).await;
        assert_eq!(result.kill_reason, Some(reason), "{script}");
    }
}

#[tokio::test]
async fn a_lying_runner_costs_only_its_own_session() {
    let world = world().await;
    let neighbour = world.start("# sim: sleep 1s\n# sim: result \"unharmed\"").await;
    for lie in ["garbage", "oversized", "wrong-order", "other-session", "hello-again"] {
        let (_, result, _) = world.run(&format!("# sim: frame {lie}")).await;
        assert_eq!(result.outcome, Outcome::Faulted, "{lie}");
        assert_eq!(result.fault.unwrap().code, FaultCode::ProtocolViolation, "{lie}");
    }
    let (_, result, _) = world.run("# sim: frame die").await;
    assert_eq!(result.fault.unwrap().code, FaultCode::SandboxLost);
    let (_, result, _) = world.end_of(&neighbour).await;
    assert_eq!(result.result, Some("unharmed".into()));
}

#[tokio::test]
async fn a_failure_at_any_step_is_told_as_ours_and_leaves_nothing() {
    for (step, code) in [
        (Step::Prepare, Some(FaultCode::SandboxFailed)),
        (Step::Handshake, Some(FaultCode::SandboxFailed)),
        (Step::Assign, Some(FaultCode::SandboxFailed)),
        (Step::Observe, None),
        (Step::Kill, None),
        (Step::Destroy, None),
        (Step::List, None),
    ] {
        let world = world().await;
        world.simulator.failures().fail_next(step, 1);
        let (_, result, _) = world.run("# sim: result 1").await;
        assert_eq!(result.fault.map(|fault| fault.code), code, "{step:?}");
        let (_, result, _) = world.run("# sim: result 2").await;
        assert_eq!(result.result, Some(2.into()), "the next session after {step:?}");
        world.simulator.failures().clear();
        world.engine.shutdown(PATIENCE).await;
        let left = backend::SessionBackend::list(world.simulator.as_ref()).await.unwrap();
        assert!(left.is_empty(), "{left:?} after {step:?}");
    }
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
async fn sessions_are_cancelled_in_the_queue_and_while_they_run() {
    let world = world_with(Config { max_concurrency: 1, ..Config::default() }).await;
    let running = world.start("# sim: hang").await;
    let queued = world.start("# sim: hang").await;
    world.running(&running).await;
    for session in [queued, running] {
        let cancelled = world.engine.cancel(&world.caller, session.id).await.unwrap();
        assert_eq!((cancelled.outcome, cancelled.phase), (Some(Outcome::Cancelled), Phase::TornDown));
        let again = world.engine.cancel(&world.caller, session.id).await.unwrap();
        assert_eq!(again, cancelled);
        let trail = world.engine.audit(&world.caller, session.id, 0, 100).await.unwrap().items;
        let exited = trail.iter().find(|event| event.kind == AuditType::WorkloadExited).unwrap();
        assert_eq!((exited.actor.as_str(), exited.data["cause"].as_str()), ("dev", Some("cancelled")));
    }
}

#[tokio::test]
async fn beyond_ceiling_and_queue_callers_are_told_to_come_again() {
    let world = world_with(Config { max_concurrency: 1, max_queue: 1, ..Config::default() }).await;
    let first = world.start("# sim: hang").await;
    let second = world.start("# sim: result 2").await;
    let refused = world.engine.create(&world.caller, request("# sim: result 3")).await;
    assert!(matches!(refused, Err(CreateError::Busy { .. })), "{refused:?}");
    world.engine.cancel(&world.caller, first.id).await.unwrap();
    let (_, result, _) = world.end_of(&second).await;
    assert_eq!(result.result, Some(2.into()));
    world.start("# sim: result 3").await;
}

#[tokio::test]
async fn an_idempotency_key_makes_one_session() {
    let world = world().await;
    let keyed = |body: &str| CreateRequest {
        idempotency: Some(("key".into(), body.as_bytes().to_vec())),
        ..request("# sim: result 1")
    };
    let first = world.engine.create(&world.caller, keyed("a")).await.unwrap();
    assert_eq!(world.engine.create(&world.caller, keyed("a")).await.unwrap().id, first.id);
    let conflict = world.engine.create(&world.caller, keyed("b")).await;
    assert!(matches!(conflict, Err(CreateError::IdempotencyConflict)), "{conflict:?}");
}

#[tokio::test]
async fn another_org_sees_nothing_and_ends_nothing() {
    let world = world().await;
    let session = world.start("# sim: hang").await;
    world.running(&session).await;
    let org = world.engine.ensure_org("other").await.unwrap();
    let other = Caller { org, subject: Subject::Dev, role: Role::Owner, narrowed: None };
    assert!(world.engine.session(&other, session.id).await.is_err());
    assert!(world.engine.stream(&other, session.id, 0).await.is_err());
    assert!(world.engine.audit(&other, session.id, 0, 10).await.is_err());
    assert!(world.engine.cancel(&other, session.id).await.is_err());
    let result = world.engine.result(&other, session.id, Duration::ZERO).await;
    assert!(matches!(result, Err(ResultError::NotFound)), "{result:?}");
    assert_eq!(world.engine.session(&world.caller, session.id).await.unwrap().phase, Phase::Running);
    world.engine.cancel(&world.caller, session.id).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_enforced_is_refused_and_audited() {
    let world = world().await;
    let mut asked = request("1");
    asked.request.egress.mode = wire::EgressMode::Allowlist;
    let refused = world.engine.create(&world.caller, asked).await;
    let Err(CreateError::NotEnforceable { faults, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(faults[0].field, "egress.mode");
    let filter = store::AuditFilter { session: None, after_seq: 0, limit: 10 };
    let events = world.store.tenant(world.caller.org).audit(filter).await.unwrap();
    assert_eq!(events.last().unwrap().kind, AuditType::SessionRefused);
}

#[tokio::test]
async fn a_drain_lets_what_runs_finish_ends_what_waits_and_admits_nothing() {
    let world = world_with(Config { max_concurrency: 1, ..Config::default() }).await;
    let running = world.start("# sim: sleep 300ms\n# sim: result 1").await;
    let queued = world.start("# sim: result 2").await;
    world.running(&running).await;
    let engine = world.engine.clone();
    let drain = tokio::spawn(async move { engine.shutdown(PATIENCE).await });
    let ended = world.engine.result(&world.caller, queued.id, PATIENCE).await.unwrap();
    assert_eq!(ended.fault.unwrap().code, FaultCode::ServerDrained);
    let refused = world.engine.create(&world.caller, request("1")).await;
    assert!(matches!(refused, Err(CreateError::Draining)), "{refused:?}");
    drain.await.unwrap();
    let finished = world.engine.session(&world.caller, running.id).await.unwrap();
    assert_eq!((finished.outcome, finished.phase), (Some(Outcome::Succeeded), Phase::TornDown));
}

#[tokio::test]
async fn a_drain_with_no_patience_ends_what_runs() {
    let world = world().await;
    let running = world.start("# sim: hang").await;
    world.running(&running).await;
    world.engine.shutdown(Duration::ZERO).await;
    let ended = world.engine.session(&world.caller, running.id).await.unwrap();
    assert_eq!(ended.fault.unwrap().code, FaultCode::ServerDrained);
    assert_eq!(ended.phase, Phase::TornDown);
}

#[tokio::test]
async fn what_an_earlier_process_left_is_ended_and_removed_before_the_first_session() {
    let world = world().await;
    let running = world.start("# sim: hang").await;
    world.running(&running).await;
    // As after kill -9: the rows and the sandboxes stand, and nobody owns them.
    let path = world.folder.path().join("copy.db");
    for suffix in ["", "-wal"] {
        std::fs::copy(world.folder.path().join(format!("engine.db{suffix}")), format!("{}{suffix}", path.display()))
            .unwrap();
    }
    world.simulator.crash();
    let parts = Parts {
        store: Arc::new(Sqlite::open(&path).await.unwrap()),
        backends: vec![world.simulator.clone()],
        clock: Clock::System,
        ids: Ids::from_os(),
        pepper: Pepper::new([7; 32]),
    };
    let restarted = Engine::start(Config { profile: Profile::Dev, ..Config::default() }, parts).await.unwrap();
    let session = restarted.session(&world.caller, running.id).await.unwrap();
    assert_eq!(session.phase, Phase::TornDown);
    assert_eq!(session.fault.unwrap().code, FaultCode::ServerRestarted);
    assert!(backend::SessionBackend::list(world.simulator.as_ref()).await.unwrap().is_empty());
    let frames: Vec<_> = restarted.stream(&world.caller, running.id, 0).await.unwrap().collect().await;
    assert_eq!(frames.last().unwrap().kind, FrameKind::End);
}
