//! Triggers: named once, changed one after another, and each firing taken up once.

use wire::{AuditType, CreateSession, FiringCause, FiringOutcome, Phase, Timestamp, Trigger, TriggerKind, TriggerRun};

use super::{
    Subject,
    support::{World, draft, new, now, session_id, trigger_id},
};
use crate::{
    Alone, CreateError, Created, Firing, NewSession, NextFiring, NotFired, StoreError, TriggerChange, TriggerError,
    TriggerFilter, TriggerRecord, Unstarted, Waited,
};

const MINUTE: i64 = 60_000;

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_millis(now().as_millis() + minutes * MINUTE)
}

fn next(minutes: i64) -> NextFiring {
    NextFiring { due: at(minutes), at: at(minutes) }
}

/// A trigger of the world's org that is due in a minute.
pub fn trigger(world: &World, name: &str) -> TriggerRecord {
    let kind = TriggerKind::Schedule { cron: "* * * * *".to_owned(), timezone: "UTC".to_owned() };
    let trigger = Trigger {
        id: trigger_id(),
        org_id: world.org,
        name: name.to_owned(),
        kind,
        session: CreateSession { code: Some("1\u{0}".to_owned()), ..CreateSession::default() },
        enabled: true,
        overlap: wire::Overlap::Queue,
        jitter_ms: Some(5),
        secret_version: None,
        created_by: "key_1".to_owned(),
        created_at: now(),
        updated_at: now(),
        next_fire_at: Some(at(1)),
    };
    TriggerRecord { trigger, sealed: Some((0..=255).collect()), revision: 1, next: Some(next(1)) }
}

/// Records one.
pub async fn created(world: &World, name: &str) -> TriggerRecord {
    let record = trigger(world, name);
    let draft = draft(AuditType::TriggerCreated, session_id());
    let change = TriggerChange::Create { record: record.clone(), draft };
    world.tenant.change_trigger(change).await.expect("a trigger is recorded");
    record
}

/// Its firing at a minute.
pub fn firing(record: &TriggerRecord, minute: i64) -> Firing {
    Firing {
        trigger: record.trigger.id,
        key: format!("due:{minute}"),
        cause: FiringCause::Schedule,
        due: at(minute),
        now: at(minute),
        alone: Alone::NotNeeded,
        waited: Waited::No,
        next: Some(next(minute + 1)),
        message: None,
    }
}

fn starting(world: &World, firing: &Firing) -> NewSession {
    NewSession { firing: Some(firing.clone()), ..new(&world.session()) }
}

async fn start(world: &World, firing: &Firing) -> Result<wire::Session, NotFired> {
    let new = starting(world, firing);
    let session = new.session.clone();
    match world.tenant.create_session(new).await {
        Ok(Created::New(_)) => Ok(session),
        Err(CreateError::NotFired(refused)) => Err(refused),
        other => panic!("{other:?}"),
    }
}

async fn unstarted(world: &World, firing: &Firing, outcome: FiringOutcome) -> Result<TriggerRun, NotFired> {
    let unstarted = Unstarted {
        firing: firing.clone(),
        outcome,
        detail: Some("why".to_owned()),
        body: Some(vec![0, 0xff]),
        most_waiting: 2,
        draft: draft(AuditType::TriggerFired, session_id()),
    };
    world.tenant.record_firing(unstarted).await
}

pub async fn a_trigger_is_read_back_changed_and_deleted(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let record = created(&world, "nightly").await;
    let (tenant, id) = (&world.tenant, record.trigger.id);
    assert_eq!(tenant.trigger(id).await.expect("a read"), Some(record.clone()));
    assert_eq!(subject.reopen().await.system().trigger(id).await.expect("a read"), Some(record.clone()));
    let sealed = (id.to_string(), record.sealed.clone().expect("it has a secret"));
    assert!(world.system.sealed().await.expect("a read").contains(&sealed));
    let event = |kind| draft(kind, session_id());
    let same_name =
        TriggerChange::Create { record: trigger(&world, "nightly"), draft: event(AuditType::TriggerCreated) };
    assert!(matches!(tenant.change_trigger(same_name).await, Err(TriggerError::NameTaken)));
    let mut changed = record.clone();
    (changed.trigger.enabled, changed.next, changed.trigger.next_fire_at) = (false, None, None);
    let change = TriggerChange::Update { record: changed.clone(), draft: event(AuditType::TriggerUpdated) };
    tenant.change_trigger(change.clone()).await.expect("a trigger is changed");
    assert!(matches!(tenant.change_trigger(change).await, Err(TriggerError::Stale)));
    changed.revision += 1;
    assert_eq!(tenant.trigger(id).await.expect("a read"), Some(changed));
    assert_eq!(world.system.next_trigger(now()).await.expect("a read"), None);
    let delete = TriggerChange::Delete { id, draft: event(AuditType::TriggerDeleted) };
    tenant.change_trigger(delete.clone()).await.expect("a trigger is deleted");
    assert!(matches!(tenant.change_trigger(delete).await, Err(TriggerError::NotFound)));
    assert_eq!(tenant.trigger(id).await.expect("a read"), None);
    assert!(matches!(start(&world, &firing(&record, 1)).await, Err(NotFired::Gone)));
    assert_eq!(world.verified().await, 3);
}

pub async fn a_firing_is_taken_up_once_by_whoever_is_first(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let record = created(&world, "nightly").await;
    let other = World { tenant: subject.reopen().await.tenant(world.org), ..world.clone() };
    for minute in 1..10 {
        let due = world.system.due_triggers(at(minute), 10).await.expect("a read");
        assert_eq!(due.iter().map(|due| due.next).collect::<Vec<_>>(), [next(minute)]);
        let firing = firing(&record, minute);
        let (one, two) = tokio::join!(start(&world, &firing), start(&other, &firing));
        let (started, refused) = match (one, two) {
            (Ok(started), Err(refused)) | (Err(refused), Ok(started)) => (started, refused),
            both => panic!("{both:?}"),
        };
        assert!(matches!(refused, NotFired::Taken), "{refused:?}");
        let runs = world.tenant.trigger_runs(record.trigger.id, 1).await.expect("a read");
        assert_eq!((runs[0].session_id, runs[0].outcome), (Some(started.id), FiringOutcome::Started));
        assert_eq!(world.system.due_triggers(at(minute), 10).await.expect("a read"), [], "it moved on with the firing");
    }
    assert_eq!(world.system.next_trigger(now()).await.expect("a read"), Some(at(10)));
    let page = world.tenant.sessions(crate::SessionFilter { limit: 100, ..Default::default() }).await.expect("a page");
    assert_eq!(page.items.len(), 9, "what was refused left no session");
    world.verified().await;
}

pub async fn a_firing_that_overlaps_waits_for_its_turn(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let record = created(&world, "nightly").await;
    let alone = |minute| Firing { alone: Alone::Needed, ..firing(&record, minute) };
    let first = start(&world, &alone(1)).await.expect("nothing is under way");
    assert!(matches!(start(&world, &alone(2)).await, Err(NotFired::Overlaps)));
    for (minute, outcome) in [(2, FiringOutcome::Queued), (3, FiringOutcome::Queued), (4, FiringOutcome::Skipped)] {
        let run = unstarted(&world, &alone(minute), FiringOutcome::Queued).await.expect("it is recorded");
        assert_eq!((run.outcome, run.due_at), (outcome, at(minute)), "two may wait");
    }
    assert!(matches!(unstarted(&world, &alone(2), FiringOutcome::Skipped).await, Err(NotFired::Taken)));
    assert_eq!(world.system.waiting_firings(10).await.expect("a read"), []);
    world.moved(&first, Phase::Succeeded).await;
    let waiting = world.system.waiting_firings(10).await.expect("a read");
    assert_eq!(waiting.len(), 1, "one after another");
    assert_eq!((waiting[0].due, waiting[0].body.as_deref()), (at(2), Some([0, 0xff].as_slice())));
    let turn = |minute| Firing { waited: Waited::Yes, next: None, ..alone(minute) };
    let second = start(&world, &turn(2)).await.expect("its turn has come");
    assert!(matches!(start(&world, &turn(2)).await, Err(NotFired::Taken)));
    assert_eq!(world.system.waiting_firings(10).await.expect("a read"), []);
    assert!(matches!(start(&world, &turn(3)).await, Err(NotFired::Overlaps)));
    world.moved(&second, Phase::Killed).await;
    start(&world, &turn(3)).await.expect("its turn has come");
    let runs = world.tenant.trigger_runs(record.trigger.id, 10).await.expect("a read");
    let outcomes: Vec<_> = runs.iter().map(|run| run.outcome).collect();
    assert_eq!(
        outcomes,
        [FiringOutcome::Skipped, FiringOutcome::Started, FiringOutcome::Started, FiringOutcome::Started]
    );
    assert_eq!(runs[0].detail.as_deref(), Some("too many firings are waiting already"));
}

pub async fn a_message_is_taken_once_while_it_is_remembered(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let record = created(&world, "hook").await;
    let called = |key: &str, message: &str, minute| Firing {
        key: key.to_owned(),
        message: Some((message.to_owned(), at(minute + 10))),
        next: None,
        ..firing(&record, minute)
    };
    start(&world, &called("a", "msg", 1)).await.expect("it is new");
    assert!(matches!(start(&world, &called("b", "msg", 2)).await, Err(NotFired::Taken)));
    assert!(matches!(unstarted(&world, &called("c", "msg", 2), FiringOutcome::Skipped).await, Err(NotFired::Taken)));
    unstarted(&world, &called("d", "other", 20), FiringOutcome::Skipped).await.expect("it is new");
    start(&world, &called("e", "msg", 21)).await.expect("it is forgotten");
}

pub async fn old_firings_go_and_what_is_under_way_stays(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let record = created(&world, "nightly").await;
    let first = start(&world, &firing(&record, 1)).await.expect("it is new");
    for minute in 2..80 {
        unstarted(&world, &firing(&record, minute), FiringOutcome::Skipped).await.expect("it is new");
    }
    let runs = world.tenant.trigger_runs(record.trigger.id, 1000).await.expect("a read");
    assert_eq!((runs.len(), runs[0].due_at), (51, at(79)));
    assert_eq!(runs[50].session_id, Some(first.id));
    let alone = Firing { alone: Alone::Needed, ..firing(&record, 80) };
    assert!(matches!(start(&world, &alone).await, Err(NotFired::Overlaps)));
}

pub async fn no_org_reaches_anothers_triggers(subject: &dyn Subject) {
    let (victim, thief) = (World::new(subject).await, World::new(subject).await);
    let record = created(&victim, "nightly").await;
    start(&victim, &firing(&record, 1)).await.expect("it is new");
    let id = record.trigger.id;
    assert_eq!(thief.tenant.trigger(id).await.expect("a read"), None);
    assert_eq!(thief.tenant.trigger_runs(id, 10).await.expect("a read"), []);
    let page = thief.tenant.triggers(TriggerFilter { limit: 10, cursor: None }).await.expect("a page");
    assert!(page.items.is_empty());
    assert!(matches!(start(&thief, &firing(&record, 2)).await, Err(NotFired::Gone)));
    assert!(matches!(unstarted(&thief, &firing(&record, 2), FiringOutcome::Skipped).await, Err(NotFired::Gone)));
    let mut stolen = record.clone();
    let event = || draft(AuditType::TriggerUpdated, session_id());
    let foreign = TriggerChange::Update { record: stolen.clone(), draft: event() };
    assert!(matches!(thief.tenant.change_trigger(foreign).await, Err(TriggerError::Store(StoreError::ForeignRecord))));
    stolen.trigger.org_id = thief.org;
    for change in
        [TriggerChange::Update { record: stolen.clone(), draft: event() }, TriggerChange::Delete { id, draft: event() }]
    {
        assert!(matches!(thief.tenant.change_trigger(change).await, Err(TriggerError::NotFound)));
    }
    assert!(victim.tenant.trigger(id).await.expect("a read").is_some());
    assert_eq!(thief.verified().await, 0);
    created(&thief, "nightly").await;
    let page = victim.tenant.triggers(TriggerFilter { limit: 1, cursor: None }).await.expect("a page");
    assert_eq!((page.items.len(), page.next_cursor), (1, None));
}
