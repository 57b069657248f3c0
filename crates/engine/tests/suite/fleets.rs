//! Fleets: what becomes of members, and of the whole by them.

use std::time::Duration;

use engine::{Config, CreateError, CreateFleetRequest, Engine, MemberFilter};
use futures::StreamExt as _;
use model::access::{Caller, Subject};
use serde_json::{Value, json};
use store::{AuditFilter, Store as _};
use wire::{
    AuditType, CreateFleet, FaultCode, Fleet, FleetEndReason, FleetId, FleetMember, FleetPhase, FrameKind, KillReason,
    MemberPhase, Outcome, Role,
};

use super::{
    backend::Wrapped,
    support::{PATIENCE, World, eventually, quick, request, still, world, world_with},
};

/// Members that each run one script.
fn members(scripts: impl IntoIterator<Item = String>) -> Value {
    scripts.into_iter().map(|script| json!({ "code": script })).collect()
}

async fn fleet(world: &World, body: Value) -> Fleet {
    try_fleet(world, body).await.unwrap()
}

async fn try_fleet(world: &World, mut body: Value) -> Result<Fleet, CreateError> {
    body["name"] = "test".into();
    let (request, shape_faults) = CreateFleet::parse(body.to_string().as_bytes()).unwrap();
    let asked = CreateFleetRequest { request, shape_faults, idempotency: None };
    world.engine.create_fleet(&world.caller, asked).await
}

/// The fleet once it has finished, with what its members are then.
async fn finished(engine: &Engine, caller: &Caller, id: FleetId) -> (Fleet, Vec<FleetMember>) {
    let frames = engine.fleet_stream(caller, id, 0).await.unwrap();
    let frames: Vec<_> = tokio::time::timeout(PATIENCE, frames.collect()).await.expect("it finishes");
    assert_eq!(frames.last().unwrap().kind, FrameKind::End);
    let fleet = engine.fleet(caller, id).await.unwrap();
    let members = all(engine, caller, id).await;
    assert_eq!(
        model::fleet::count(members.iter().map(|member| member.phase)),
        fleet.counts,
        "the counts are the members'"
    );
    (fleet, members)
}

async fn all(engine: &Engine, caller: &Caller, id: FleetId) -> Vec<FleetMember> {
    let filter = MemberFilter { fleet: id, cursor: None, limit: 1000, phase: None };
    engine.fleet_members(caller, filter).await.unwrap().items
}

async fn sum(world: &World, id: FleetId) -> u64 {
    let filter = MemberFilter { fleet: id, cursor: None, limit: 1000, phase: None };
    let page = world.engine.fleet_results(&world.caller, filter).await.unwrap();
    page.items.iter().filter_map(|result| result.result.as_ref()?.value().as_u64()).sum()
}

fn of(members: &[FleetMember], phase: MemberPhase) -> usize {
    members.iter().filter(|member| member.phase == phase).count()
}

#[tokio::test]
async fn one_hostile_member_changes_nothing_for_a_hundred_others() {
    let world = world_with(Config { max_concurrency: 8, ..quick() }).await;
    let honest = (0..100).map(|i| format!("# sim: result {}", i * i + 1));
    let made = fleet(&world, json!({"members": members(honest.chain(["# sim: memory 64GiB".into()]))})).await;
    let (fleet, members) = finished(&world.engine, &world.caller, made.id).await;
    assert_eq!(sum(&world, made.id).await, 328_450);
    assert_eq!((fleet.phase, fleet.reason, fleet.counts.succeeded), (FleetPhase::Failed, None, 100));
    assert_eq!(members[100].kill_reason, Some(KillReason::MemoryExceeded));
    assert_eq!(members.iter().map(|member| member.index).collect::<Vec<_>>(), (0..101).collect::<Vec<_>>());
    assert!(fleet.started_at.unwrap() <= fleet.finished_at.unwrap());
    let filter = AuditFilter { session: None, after_seq: 0, limit: 1000 };
    let log = world.store.tenant(world.caller.org).audit(filter).await.unwrap();
    assert_eq!(log[0].kind, AuditType::FleetCreated);
    let ended = log.iter().filter(|event| event.kind == AuditType::FleetFinished).collect::<Vec<_>>();
    assert_eq!((ended.len(), &ended[0].data["counts"]["killed"]), (1, &json!(1)));
    store::verify(&world.store, world.caller.org).await.unwrap();
}

#[tokio::test]
async fn no_more_members_than_the_ceiling_hold_a_sandbox() {
    let world = world_with(Config { max_concurrency: 8, ..quick() }).await;
    let asked = json!({"members": members((0..12).map(|_| "# sim: sleep 50ms".into())), "maxConcurrency": 3});
    let made = fleet(&world, asked).await;
    let mut most = 0;
    eventually("it has finished", async || {
        most = most.max(world.standing().await.len());
        world.engine.fleet(&world.caller, made.id).await.unwrap().phase.is_terminal()
    })
    .await;
    assert!((2..=3).contains(&most), "{most}");
}

#[tokio::test]
async fn the_first_success_ends_the_rest_which_is_told_why() {
    let world = world_with(Config { max_concurrency: 3, ..quick() }).await;
    let scripts = ["exit 1", "hang", "sleep 20ms", "hang", "hang"].map(|line| format!("# sim: {line}"));
    let made = fleet(&world, json!({"members": members(scripts), "completion": "first_success"})).await;
    let (fleet, members) = finished(&world.engine, &world.caller, made.id).await;
    assert_eq!((fleet.phase, fleet.reason), (FleetPhase::Succeeded, Some(FleetEndReason::CompletionMet)));
    assert_eq!((members[0].phase, members[0].reason), (MemberPhase::Failed, None));
    assert_eq!((members[2].phase, members[2].reason), (MemberPhase::Succeeded, None));
    for cut in [1, 3, 4] {
        assert_eq!(members[cut].reason, Some(FleetEndReason::CompletionMet), "{members:?}");
    }
    let session = members[1].session_id.unwrap();
    let trail = world.engine.audit(&world.caller, session, 0, 100).await.unwrap().items;
    let exited = trail.iter().find(|event| event.kind == AuditType::WorkloadExited).unwrap();
    assert_eq!(exited.actor, format!("{} completion_met", made.id));
}

#[tokio::test]
async fn a_quorum_is_met_or_it_is_not() {
    let world = world_with(Config { max_concurrency: 1, ..quick() }).await;
    let scripts = ["exit 0", "exit 1", "exit 0", "exit 0", "exit 0"].map(|line| format!("# sim: {line}"));
    let made = fleet(&world, json!({"members": members(scripts.clone()), "completion": {"quorum": 2}})).await;
    let (fleet_, members_) = finished(&world.engine, &world.caller, made.id).await;
    assert_eq!((fleet_.phase, of(&members_, MemberPhase::Skipped)), (FleetPhase::Succeeded, 2));
    let made = fleet(&world, json!({"members": members(scripts), "completion": {"quorum": 5}})).await;
    let (fleet, members) = finished(&world.engine, &world.caller, made.id).await;
    assert_eq!((fleet.phase, fleet.reason, of(&members, MemberPhase::Succeeded)), (FleetPhase::Failed, None, 4));
}

#[tokio::test]
async fn a_cancellation_ends_what_runs_and_skips_what_waits() {
    let world = world_with(Config { max_concurrency: 2, ..quick() }).await;
    let made = fleet(&world, json!({"members": members((0..500).map(|_| "# sim: hang".into()))})).await;
    eventually("two run", async || world.engine.fleet(&world.caller, made.id).await.unwrap().counts.running == 2).await;
    let cancelled = world.engine.cancel_fleet(&world.caller, made.id).await.unwrap();
    assert_eq!((cancelled.phase, cancelled.reason), (FleetPhase::Killed, Some(FleetEndReason::Cancelled)));
    let (fleet, members) = finished(&world.engine, &world.caller, made.id).await;
    assert_eq!(fleet, cancelled);
    assert_eq!((of(&members, MemberPhase::Killed), of(&members, MemberPhase::Skipped)), (2, 498));
    eventually("nothing is left", async || world.standing().await.is_empty()).await;
    assert_eq!(world.engine.cancel_fleet(&world.caller, made.id).await.unwrap(), fleet);
}

#[tokio::test]
async fn each_budget_ends_a_fleet_with_its_own_reason() {
    let world = world_with(Config { max_concurrency: 2, ..quick() }).await;
    let scripts = |line: &str| members((0..6).map(|_| format!("# sim: {line}")));
    let cpu = json!({"members": scripts("cpu 400ms"), "budget": {"cpuMs": 500}});
    let made = fleet(&world, cpu).await;
    let (ended, members) = finished(&world.engine, &world.caller, made.id).await;
    assert_eq!((ended.phase, ended.reason), (FleetPhase::Killed, Some(FleetEndReason::CpuBudgetExceeded)));
    assert!((500..1500).contains(&ended.used.cpu_ms), "{:?}", ended.used);
    assert!(of(&members, MemberPhase::Skipped) >= 2, "{members:?}");

    let wall = json!({"members": scripts("hang"), "budget": {"wallMs": 300}});
    let made = fleet(&world, wall).await;
    let (ended, members) = finished(&world.engine, &world.caller, made.id).await;
    assert_eq!((ended.phase, ended.reason), (FleetPhase::Killed, Some(FleetEndReason::WallBudgetExceeded)));
    assert!(ended.used.wall_ms >= 200, "{:?}", ended.used);
    assert_eq!((of(&members, MemberPhase::Killed), of(&members, MemberPhase::Skipped)), (2, 4));
}

#[tokio::test(start_paused = true)]
async fn the_budget_of_time_is_used_up_by_all_members_together_and_to_the_millisecond() {
    let still = still(|simulator| Wrapped::new(simulator, "simulator")).await;
    let scripts = members((0..5).map(|_| "# sim: hang".into()));
    let asked = json!({"members": scripts, "maxConcurrency": 2, "budget": {"wallMs": 10_000}});
    let made = fleet(&still.world, asked).await;
    let now = async || still.world.engine.fleet(&still.world.caller, made.id).await.unwrap();
    while now().await.counts.running < 2 {
        still.pass(0).await;
    }
    let began = now().await.started_at.unwrap();
    still.pass(4999).await;
    assert_eq!(now().await.counts.running, 2, "not a millisecond early");
    still.pass(1).await;
    let (ended, members) = finished(&still.world.engine, &still.world.caller, made.id).await;
    assert_eq!((ended.phase, ended.reason), (FleetPhase::Killed, Some(FleetEndReason::WallBudgetExceeded)));
    assert_eq!((of(&members, MemberPhase::Killed), of(&members, MemberPhase::Skipped)), (2, 3));
    assert_eq!(ended.used.wall_ms, 10_000);
    assert_eq!(ended.finished_at.unwrap().as_millis() - began.as_millis(), 5000, "and not a millisecond late");
}

#[tokio::test]
async fn a_member_that_takes_all_of_the_cpu_time_is_stopped_at_what_is_left_of_it() {
    let world = world().await;
    let made = fleet(&world, json!({"members": members(["# sim: cpu 1000s".into()]), "budget": {"cpuMs": 100}})).await;
    let (ended, members) = finished(&world.engine, &world.caller, made.id).await;
    assert_eq!((ended.phase, members[0].kill_reason), (FleetPhase::Failed, Some(KillReason::CpuExceeded)));
    assert!((100..200).contains(&ended.used.cpu_ms), "{:?}", ended.used);
}

#[tokio::test]
async fn single_sessions_and_other_orgs_do_not_wait_behind_a_fleet() {
    let world = world_with(Config { max_concurrency: 1, max_queue: 1, ..quick() }).await;
    let made = fleet(&world, json!({"members": members((0..200).map(|_| "# sim: sleep 10ms".into()))})).await;
    eventually("it runs", async || world.engine.fleet(&world.caller, made.id).await.unwrap().counts.succeeded > 0)
        .await;
    let org = world.engine.ensure_org("other").await.unwrap();
    let other = Caller { org, subject: Subject::Dev, role: Role::Owner, narrowed: None };
    for caller in [&world.caller, &other] {
        let session = world.engine.create(caller, request("# sim: result 1")).await.unwrap();
        world.engine.result(caller, session.id, PATIENCE).await.unwrap();
        let counts = world.engine.fleet(&world.caller, made.id).await.unwrap().counts;
        assert!(counts.queued > 100, "the session waited for the fleet: {counts:?}");
    }
    assert!(world.engine.fleet(&other, made.id).await.is_err());
    assert!(world.engine.cancel_fleet(&other, made.id).await.is_err());
    assert!(world.engine.fleet_stream(&other, made.id, 0).await.is_err());
    world.engine.cancel_fleet(&world.caller, made.id).await.unwrap();
}

#[tokio::test]
async fn after_a_kill_members_that_ran_are_told_truthfully_and_the_others_go_on() {
    use MemberPhase::{Failed, Succeeded};
    let world = world_with(Config { max_concurrency: 2, ..quick() }).await;
    let scripts = ["exit 0", "exit 0", "sleep 1h", "sleep 1h", "exit 0", "exit 3"].map(|line| format!("# sim: {line}"));
    let made = fleet(&world, json!({"members": members(scripts)})).await;
    eventually("two hang", async || {
        let counts = world.engine.fleet(&world.caller, made.id).await.unwrap().counts;
        (counts.succeeded, counts.running) == (2, 2)
    })
    .await;
    let backend = std::sync::Arc::new(Wrapped::new(std::sync::Arc::clone(&world.simulator), "simulator"));
    let engine = world.restarted(Config { max_concurrency: 2, ..quick() }, backend).await;
    let (fleet, members) = finished(&engine, &world.caller, made.id).await;
    assert_eq!((fleet.phase, fleet.reason, fleet.created_by.as_str()), (FleetPhase::Failed, None, "dev"));
    let phases: Vec<_> = members.iter().map(|member| member.phase).collect();
    assert_eq!(phases, [Succeeded, Succeeded, Failed, Failed, Succeeded, Failed]);
    for cut in &members[2..4] {
        assert_eq!(cut.outcome, Some(Outcome::Faulted));
        assert_eq!(cut.fault.as_ref().unwrap().code, FaultCode::ServerRestarted);
    }
    assert_eq!(members[5].outcome, Some(Outcome::Failed));
    engine.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_drain_lets_members_finish_and_the_others_wait_for_the_next_start() {
    let world = world_with(Config { max_concurrency: 1, ..quick() }).await;
    let scripts = ["sleep 200ms", "exit 0", "exit 0"].map(|line| format!("# sim: {line}"));
    let made = fleet(&world, json!({"members": members(scripts)})).await;
    eventually("one runs", async || world.engine.fleet(&world.caller, made.id).await.unwrap().counts.running == 1)
        .await;
    let frames = world.engine.fleet_stream(&world.caller, made.id, 0).await.unwrap();
    let engine = world.engine.clone();
    let drained = tokio::spawn(async move { engine.shutdown(PATIENCE).await });
    let frames: Vec<_> = tokio::time::timeout(PATIENCE, frames.collect()).await.expect("the stream ends");
    assert_ne!(frames.last().unwrap().kind, FrameKind::End, "there is more to come");
    drained.await.unwrap().unwrap();
    let backend = std::sync::Arc::new(Wrapped::new(std::sync::Arc::clone(&world.simulator), "simulator"));
    let engine = world.restarted(quick(), backend).await;
    let (fleet, _) = finished(&engine, &world.caller, made.id).await;
    assert_eq!((fleet.phase, fleet.counts.succeeded), (FleetPhase::Succeeded, 3));
    // A reader who comes back from before the restart gets the end.
    let last = frames.last().unwrap().seq;
    let rest: Vec<_> = engine.fleet_stream(&world.caller, made.id, last).await.unwrap().collect().await;
    assert_eq!(rest.last().unwrap().kind, FrameKind::End);
    assert_eq!(rest.iter().filter(|frame| frame.kind == FrameKind::Member).count(), 3);
}

#[tokio::test]
async fn a_member_that_cannot_be_started_any_more_says_why_and_the_others_go_on() {
    let world = world_with(Config { max_concurrency: 1, ..quick() }).await;
    let scripts = ["sleep 1h", "exit 0"].map(|line| format!("# sim: {line}"));
    let mut listed = members(scripts);
    listed[1]["limits"] = json!({"memoryBytes": 1_u64 << 30});
    let made = fleet(&world, json!({"members": listed})).await;
    eventually("one runs", async || world.engine.fleet(&world.caller, made.id).await.unwrap().counts.running == 1)
        .await;
    // The next server gives less.
    let maxima = model::limits::Limits { memory_bytes: 512 << 20, ..model::limits::CEILING };
    let backend = std::sync::Arc::new(Wrapped::new(std::sync::Arc::clone(&world.simulator), "simulator"));
    let engine = world.restarted(Config { maxima, ..quick() }, backend).await;
    let (fleet, members) = finished(&engine, &world.caller, made.id).await;
    assert_eq!(fleet.phase, FleetPhase::Failed);
    let fault = members[1].fault.as_ref().unwrap();
    assert_eq!((fault.code, members[1].session_id), (FaultCode::NotStarted, None));
    assert!(fault.detail.contains("limits.memoryBytes"), "{fault:?}");
    engine.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn what_no_member_could_have_is_refused_before_any_is_admitted() {
    let world = world().await;
    let kept = json!({ "members": [{ "code": "1" }, { "code": "1", "artifacts": ["out/**"] }] });
    let refused = try_fleet(&world, kept).await;
    let Err(CreateError::NotSupported(faults)) = refused else { panic!("{refused:?}") };
    assert_eq!(faults[0].field, "members[1].artifacts");
    let told = json!({ "members": [{ "code": "1", "webhookUrl": "http://169.254.169.254/latest" }] });
    let refused = try_fleet(&world, told).await;
    let Err(CreateError::Invalid(faults)) = refused else { panic!("{refused:?}") };
    assert_eq!(faults[0].field, "members[0].webhookUrl");
}
