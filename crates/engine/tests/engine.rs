//! The engine over the simulator and a real store: every end that a session can have, told once and truthfully.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod suite {
    mod artifacts;
    mod backend;
    mod bindings;
    mod clones;
    mod creations;
    mod failures;
    mod files;
    mod fleets;
    mod outages;
    mod recovered;
    mod store;
    pub(crate) mod support;
    mod talk;
    mod triggers;
    mod turns;
    mod turns_bounds;
    mod webhooks;
}

use std::time::Duration;

use engine::{Config, CreateError, ResultError};
use model::access::{Caller, Subject};
use store::Store;
use wire::{AuditType, FaultCode, KillReason, Outcome, Phase, Role};

use crate::suite::support::{PATIENCE, request, world, world_with};

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
    assert_eq!(result.value(), Some(serde_json::json!({"a": [1, 2]})));
    assert!(session.started_at.is_some() && session.finished_at.is_some() && session.torn_down_at.is_some());
}

#[tokio::test]
async fn a_result_is_kept_as_it_was_given() {
    let world = world().await;
    let (session, result, _) = world.run("# sim: result {\"b\": 12345678901234567890123, \"a\": [1.50]}").await;
    let text = r#"{"b":12345678901234567890123,"a":[1.50]}"#;
    assert_eq!(result.result.unwrap().as_str(), text);
    let recorded = world.store.tenant(session.org_id).result(session.id).await.unwrap().unwrap();
    assert_eq!(recorded.result.unwrap().as_str(), text);
    let deep = format!("# sim: result {}{}", "[".repeat(101), "]".repeat(101));
    let (_, result, _) = world.run(&deep).await;
    assert_eq!(result.result, None);
    assert!(result.stderr_tail.contains("nested deeper than 100 levels"), "{}", result.stderr_tail);
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
    assert_eq!(result.value(), Some("unharmed".into()));
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
    asked.request.image = Some("other".into());
    let refused = world.engine.create(&world.caller, asked).await;
    let Err(CreateError::NotEnforceable { faults, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(faults[0].field, "image");
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
    drain.await.unwrap().unwrap();
    let finished = world.engine.session(&world.caller, running.id).await.unwrap();
    assert_eq!((finished.outcome, finished.phase), (Some(Outcome::Succeeded), Phase::TornDown));
}

#[tokio::test]
async fn a_drain_with_no_patience_ends_what_runs() {
    let world = world().await;
    let running = world.start("# sim: hang").await;
    world.running(&running).await;
    world.engine.shutdown(Duration::ZERO).await.unwrap();
    let ended = world.engine.session(&world.caller, running.id).await.unwrap();
    assert_eq!(ended.fault.unwrap().code, FaultCode::ServerDrained);
    assert_eq!(ended.phase, Phase::TornDown);
}
