//! Fleets and their members.

use model::audit::Draft;
use serde_json::json;
use wire::{
    AuditSource, AuditType, Completion, FaultCode, Fleet, FleetCounts, FleetEndReason, FleetId, FleetPhase, FleetUsage,
    MemberPhase, Outcome, Phase, Session, SessionFault, Timestamp,
};

use super::{
    Subject,
    support::{World, new, now, result, update, uuid},
};
use crate::{
    CreateError, CreatedFleet, FleetChange, FleetFilter, Idempotency, MemberError, MemberFilter, NewFleet, Old, Seat,
    StoreError, Task,
};

/// A new fleet of an org.
pub fn fleet(world: &World, members: u32) -> Fleet {
    Fleet {
        id: FleetId::from_uuid(uuid()),
        org_id: world.org,
        created_by: "dev".to_owned(),
        name: "shards".to_owned(),
        phase: FleetPhase::Pending,
        reason: None,
        completion: Completion::Quorum(2),
        max_concurrency: Some(8),
        budget: None,
        used: FleetUsage::default(),
        counts: FleetCounts { total: members, queued: members, ..FleetCounts::default() },
        labels: [("team".to_owned(), "infra".to_owned())].into(),
        created_at: now(),
        started_at: None,
        finished_at: None,
    }
}

fn draft(kind: AuditType, fleet: &Fleet) -> Draft {
    let (actor, source) = ("dev".to_owned(), AuditSource::Platform);
    Draft { ts: now(), kind, session_id: None, actor, source, data: json!({ "fleet": fleet.id }) }
}

/// What records it: with a template, and inputs that are numbers.
pub fn recording(fleet: &Fleet) -> NewFleet {
    NewFleet {
        fleet: fleet.clone(),
        template: Some("{\"code\":\"1\"}".to_owned()),
        tasks: (0..fleet.counts.total).map(|input| input.to_string()).collect(),
        idempotency: None,
        drafts: vec![draft(AuditType::FleetCreated, fleet)],
    }
}

/// Records a fleet.
pub async fn created(world: &World, members: u32) -> Fleet {
    let fleet = fleet(world, members);
    world.tenant.create_fleet(recording(&fleet)).await.expect("a fleet is recorded");
    fleet
}

/// Which of its members, all.
pub fn members_of(fleet: FleetId) -> MemberFilter {
    MemberFilter { fleet, cursor: None, limit: 1000, phase: None }
}

/// The end of it, as it stands.
pub fn finish(fleet: &Fleet) -> FleetChange {
    let fleet = Fleet { phase: FleetPhase::Failed, finished_at: Some(now()), ..fleet.clone() };
    let draft = draft(AuditType::FleetFinished, &fleet);
    FleetChange::Finish { fleet: Box::new(fleet), draft }
}

async fn started(world: &World, fleet: &Fleet, index: u32) -> Session {
    let session = world.session();
    let seat = Seat { fleet: fleet.id, index };
    world.tenant.create_member(seat, new(&session)).await.expect("a member is started");
    session
}

async fn ended(world: &World, session: &Session, outcome: Outcome) {
    let mut end = update(session, Phase::TornDown);
    end.session.outcome = Some(outcome);
    end.result = Some(result(session.id, Some(json!({ "n": 1.5 }))));
    world.tenant.update_session(end).await.expect("a session ends");
}

async fn phases(world: &World, fleet: &Fleet) -> Vec<MemberPhase> {
    let page = world.tenant.fleet_members(members_of(fleet.id)).await.expect("a page");
    page.items.into_iter().map(|member| member.phase).collect()
}

pub async fn a_fleet_is_read_back_as_it_was_given_with_all_of_its_members(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let fleet = created(&world, 1234).await;
    let again = subject.reopen().await;
    assert_eq!(again.tenant(world.org).fleet(fleet.id).await.expect("a read"), Some(fleet.clone()));
    assert!(again.system().unfinished_fleets().await.expect("a read").contains(&fleet));
    let mut seen = Vec::new();
    let mut filter = MemberFilter { limit: 500, ..members_of(fleet.id) };
    loop {
        let page = world.tenant.fleet_members(filter.clone()).await.expect("a page");
        seen.extend(page.items.into_iter().map(|member| (member.index, member.phase)));
        let Some(cursor) = page.next_cursor else { break };
        filter.cursor = Some(cursor);
    }
    assert_eq!(seen, (0..1234).map(|index| (index, MemberPhase::Queued)).collect::<Vec<_>>());
    let task = world.tenant.fleet_task(Seat { fleet: fleet.id, index: 777 }).await.expect("a read");
    assert_eq!(task, Some(Task { template: Some("{\"code\":\"1\"}".to_owned()), task: "777".to_owned() }));
    assert_eq!(world.tenant.fleet_task(Seat { fleet: fleet.id, index: 1234 }).await.expect("a read"), None);
    assert_eq!(world.verified().await, 1);
}

pub async fn a_member_is_what_its_session_is(subject: &dyn Subject) {
    use MemberPhase::{Failed, Killed, Pending, Queued, Running, Skipped, Succeeded};
    let world = World::new(subject).await;
    let fleet = created(&world, 9).await;
    let mut sessions = Vec::new();
    for index in 0..7 {
        sessions.push(started(&world, &fleet, index).await);
    }
    world.moved(&sessions[1], Phase::Running).await;
    let outcomes = [Outcome::Succeeded, Outcome::Failed, Outcome::Killed, Outcome::Cancelled, Outcome::Faulted];
    for (session, outcome) in sessions[2..].iter().zip(outcomes) {
        ended(&world, session, outcome).await;
    }
    let fault = SessionFault { code: FaultCode::NotStarted, detail: "gone".to_owned() };
    let seat = Seat { fleet: fleet.id, index: 7 };
    world.tenant.change_fleet(FleetChange::Fault { seat, fault: fault.clone() }).await.expect("a change");
    assert_eq!(
        phases(&world, &fleet).await,
        [Pending, Running, Succeeded, Failed, Killed, Killed, Failed, Failed, Queued]
    );
    let ends = FleetChange::EndedBy { id: fleet.id, reason: FleetEndReason::Cancelled };
    world.tenant.change_fleet(ends).await.expect("a change");
    let all = world.tenant.fleet_members(members_of(fleet.id)).await.expect("a page").items;
    assert_eq!((all[8].phase, all[8].reason), (Skipped, Some(FleetEndReason::Cancelled)));
    assert_eq!((all[7].outcome, &all[7].fault), (Some(Outcome::Faulted), &Some(fault)));
    assert_eq!(all[5].reason, None, "it had been cancelled before");
    ended(&world, &sessions[1], Outcome::Cancelled).await;
    // Each filter finds exactly those that are in the phase.
    for phase in MemberPhase::ALL {
        let filter = MemberFilter { phase: Some(phase), ..members_of(fleet.id) };
        let found = world.tenant.fleet_members(filter).await.expect("a page").items;
        let all = world.tenant.fleet_members(members_of(fleet.id)).await.expect("a page").items;
        assert_eq!(found, all.into_iter().filter(|member| member.phase == phase).collect::<Vec<_>>());
    }
    let cut = &world.tenant.fleet_members(members_of(fleet.id)).await.expect("a page").items[1];
    assert_eq!((cut.phase, cut.reason), (Killed, Some(FleetEndReason::Cancelled)));
    let results = world.tenant.fleet_results(members_of(fleet.id)).await.expect("a page").items;
    assert_eq!(results[2].result.as_ref().map(wire::JsonText::as_str), Some("{\"n\":1.5}"));
    assert_eq!((results.len(), &results[8].result, results[0].exit_code), (9, &None, None));
}

pub async fn a_member_gets_one_session_and_none_once_its_fleet_was_ended(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let fleet = created(&world, 3).await;
    let first = started(&world, &fleet, 0).await;
    let again = world.tenant.create_member(Seat { fleet: fleet.id, index: 0 }, new(&world.session())).await;
    assert!(matches!(again, Err(MemberError::NotQueued)), "{again:?}");
    let taken = world.tenant.create_member(Seat { fleet: fleet.id, index: 1 }, new(&first)).await;
    assert!(matches!(taken, Err(MemberError::Store(StoreError::Taken(_)))), "{taken:?}");
    for reason in [FleetEndReason::CompletionMet, FleetEndReason::Cancelled] {
        let ends = FleetChange::EndedBy { id: fleet.id, reason };
        world.tenant.change_fleet(ends).await.expect("a change");
    }
    let late = world.session();
    let refused = world.tenant.create_member(Seat { fleet: fleet.id, index: 1 }, new(&late)).await;
    assert!(matches!(refused, Err(MemberError::NotQueued)), "{refused:?}");
    assert_eq!(world.tenant.session(late.id).await.expect("a read"), None);
    let shown = world.tenant.fleet(fleet.id).await.expect("a read").expect("it is there");
    assert_eq!(shown.reason, Some(FleetEndReason::CompletionMet), "the first reason stays");
    let nobody = world.tenant.create_member(Seat { fleet: fleet.id, index: 9 }, new(&world.session())).await;
    assert!(matches!(nobody, Err(MemberError::NotQueued)), "{nobody:?}");
    assert_eq!(world.verified().await, 2);
}

pub async fn a_fleet_finishes_once(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let fleet = created(&world, 1).await;
    world.tenant.change_fleet(finish(&fleet)).await.expect("a change");
    let ended = world.tenant.fleet(fleet.id).await.expect("a read").expect("it is there");
    assert_eq!((ended.phase, ended.finished_at), (FleetPhase::Failed, Some(now())));
    let other = Fleet { name: "another".to_owned(), ..fleet.clone() };
    world.tenant.change_fleet(finish(&other)).await.expect("nothing changes");
    let reason = FleetEndReason::Cancelled;
    world.tenant.change_fleet(FleetChange::EndedBy { id: fleet.id, reason }).await.expect("nothing changes");
    assert_eq!(world.tenant.fleet(fleet.id).await.expect("a read"), Some(ended));
    assert!(!world.system.unfinished_fleets().await.expect("a read").iter().any(|other| other.id == fleet.id));
    assert_eq!(world.verified().await, 2);
}

pub async fn the_same_request_gets_the_fleet_that_it_made(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let keyed = |fleet: &Fleet, digest: &str| {
        let idempotency = Some(Idempotency { key: "key".to_owned(), request_digest: digest.to_owned() });
        NewFleet { idempotency, ..recording(fleet) }
    };
    let mut first = fleet(&world, 2);
    first.created_at = Timestamp::from_millis(now().as_millis() - 1000);
    let made = world.tenant.create_fleet(keyed(&first, "digest")).await;
    assert!(matches!(made, Ok(CreatedFleet::New)), "{made:?}");
    let again = world.tenant.create_fleet(keyed(&fleet(&world, 2), "digest")).await;
    let Ok(CreatedFleet::Existing(existing)) = again else { panic!("{again:?}") };
    assert_eq!(*existing, first);
    let conflict = world.tenant.create_fleet(keyed(&fleet(&world, 2), "other")).await;
    assert!(matches!(conflict, Err(CreateError::IdempotencyConflict)), "{conflict:?}");
    let idempotency = Idempotency { key: "key".to_owned(), request_digest: "digest".to_owned() };
    assert_eq!(world.tenant.repeated_fleet(&idempotency).await.expect("a read"), Some(first.clone()));
    let page = world.tenant.fleets(FleetFilter { cursor: None, limit: 10 }).await.expect("a page");
    assert_eq!(page.items, [first]);
    assert_eq!(world.verified().await, 1);
    assert_eq!(world.system.forget(Old { keys: now(), deliveries: now() }).await.expect("a write"), 1);
    assert_eq!(world.tenant.repeated_fleet(&idempotency).await.expect("a read"), None);
}

pub async fn fleets_are_listed_newest_first_in_pages_of_their_own(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(created(&world, 3).await);
    }
    made.reverse();
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = world.tenant.fleets(FleetFilter { cursor, limit: 2 }).await.expect("a page");
        seen.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, made);
    let page = world.tenant.fleet_members(MemberFilter { limit: 1, ..members_of(made[0].id) }).await.expect("a page");
    let cursor = page.next_cursor;
    assert!(cursor.is_some());
    // A cursor is of one list.
    let other = MemberFilter { cursor: cursor.clone(), ..members_of(made[1].id) };
    for page in
        [world.tenant.fleet_members(other.clone()).await.map(drop), world.tenant.fleet_results(other).await.map(drop)]
    {
        assert!(matches!(page, Err(StoreError::BadCursor)), "{page:?}");
    }
    let page = world.tenant.fleets(FleetFilter { cursor, limit: 1 }).await;
    assert!(matches!(page, Err(StoreError::BadCursor)), "{page:?}");
}

pub async fn a_page_of_results_ends_where_it_gets_large(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let fleet = created(&world, 6).await;
    for index in 0..5 {
        let session = started(&world, &fleet, index).await;
        let mut end = update(&session, Phase::TornDown);
        end.session.outcome = Some(Outcome::Succeeded);
        end.result = Some(result(session.id, Some("x".repeat(2 << 20).into())));
        world.tenant.update_session(end).await.expect("a session ends");
    }
    let (mut filter, mut pages) = (members_of(fleet.id), Vec::new());
    loop {
        let page = world.tenant.fleet_results(filter.clone()).await.expect("a page");
        pages.push(page.items.len());
        let Some(cursor) = page.next_cursor else { break };
        filter.cursor = Some(cursor);
    }
    assert_eq!(pages, [2, 2, 2]);
}
