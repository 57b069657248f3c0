//! Recording sessions: everything of a write, or nothing.

use std::{future::poll_fn, task::Poll};

use serde_json::json;
use tokio::task::JoinSet;
use wire::{AuditType, Outcome, Phase};

use super::{
    Subject,
    support::{World, draft, kinds, message, new, result, session, update},
};
use crate::{Created, UpdateError};

pub async fn a_session_is_read_back_as_it_was_given(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let mut session = world.session();
    session.labels = [("team".to_owned(), "infra".to_owned())].into();
    session.args = vec!["--fast".to_owned()];
    session.env = [("LANG".to_owned(), "C.UTF-8".to_owned())].into();
    let Ok(Created::New(events)) = world.tenant.create_session(new(&session)).await else {
        panic!("it was not recorded")
    };
    assert_eq!(kinds(&events), [AuditType::SessionCreated]);
    assert_eq!(world.tenant.session(session.id).await.expect("a read"), Some(session.clone()));
    assert_eq!(world.audit_of(session.id).await, events);
}

pub async fn an_update_changes_state_result_outbox_and_audit(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let session = world.created().await;
    let mut update = update(&session, Phase::Succeeded);
    update.session.outcome = Some(Outcome::Succeeded);
    update.result = Some(result(session.id, Some(json!({ "answer": 42.5, "list": [1, "two", null] }))));
    update.drafts.push(draft(AuditType::ResultCollected, session.id));
    update.outbox = vec![message("first"), message("second")];
    let events = world.tenant.update_session(update.clone()).await.expect("a live session is updated");
    assert_eq!(kinds(&events), [AuditType::WorkloadExited, AuditType::ResultCollected]);
    assert_eq!(world.tenant.session(session.id).await.expect("a read"), Some(update.session));
    assert_eq!(world.tenant.result(session.id).await.expect("a read"), update.result);
    assert_eq!(world.audit_of(session.id).await[1..], events);
    assert_eq!(subject.outbox(world.org).await, update.outbox);
    assert_eq!(world.verified().await, 3);
}

pub async fn a_torn_down_session_is_never_updated_again(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let session = world.created().await;
    let gone = world.moved(&session, Phase::TornDown).await;
    for phase in [Phase::Pending, Phase::Running, Phase::Succeeded, Phase::TornDown] {
        let mut late = update(&session, phase);
        late.result = Some(result(session.id, None));
        late.outbox = vec![message("late")];
        late.sandbox = Some("late".to_owned());
        let refused = world.tenant.update_session(late).await;
        assert!(matches!(refused, Err(UpdateError::NotLive(id)) if id == session.id), "{refused:?}");
    }
    assert_eq!(world.tenant.session(session.id).await.expect("a read"), Some(gone));
    assert_eq!(world.tenant.result(session.id).await.expect("a read"), None);
    assert_eq!(subject.outbox(world.org).await, []);
    assert_eq!(world.verified().await, 2);
}

pub async fn a_session_that_is_not_there_is_not_updated(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let never = world.session();
    let mut change = update(&never, Phase::Running);
    change.outbox = vec![message("never")];
    let refused = world.tenant.update_session(change).await;
    assert!(matches!(refused, Err(UpdateError::NotLive(id)) if id == never.id), "{refused:?}");
    assert_eq!(world.tenant.session(never.id).await.expect("a read"), None);
    assert_eq!(subject.outbox(world.org).await, []);
    assert_eq!(world.verified().await, 0);
}

/// Thirty-two live sessions and as many torn-down ones, all updated at once, so that an implementation that writes several
/// at once has both in one transaction.
pub async fn failing_updates_among_good_ones_leave_no_trace(subject: &dyn Subject) {
    const EACH: usize = 32;
    let world = World::new(subject).await;
    let (mut live, mut gone) = (Vec::new(), Vec::new());
    for _ in 0..EACH {
        live.push(world.created().await);
        let session = world.created().await;
        gone.push(world.moved(&session, Phase::TornDown).await);
    }
    let before = world.verified().await;
    let mut writes = JoinSet::new();
    for session in live.iter().zip(&gone).flat_map(|(live, gone)| [live, gone]) {
        let (tenant, fails) = (world.tenant.clone(), session.phase == Phase::TornDown);
        let mut change = update(session, Phase::Succeeded);
        change.result = Some(result(session.id, Some(json!("done"))));
        change.outbox = vec![message(&session.id.to_string())];
        writes.spawn(async move { (fails, tenant.update_session(change).await) });
    }
    let mut failed = 0;
    while let Some(done) = writes.join_next().await {
        let (fails, done) = done.expect("no write panics");
        assert_eq!(matches!(done, Err(UpdateError::NotLive(_))), fails, "{done:?}");
        assert_eq!(done.is_ok(), !fails, "{done:?}");
        failed += usize::from(fails);
    }
    assert_eq!(failed, EACH);
    for session in &gone {
        assert_eq!(world.tenant.session(session.id).await.expect("a read").as_ref(), Some(session));
        assert_eq!(world.tenant.result(session.id).await.expect("a read"), None);
        assert_eq!(world.audit_of(session.id).await.len(), 2);
    }
    for session in &live {
        let now = world.tenant.session(session.id).await.expect("a read").expect("it is there");
        assert_eq!(now.phase, Phase::Succeeded);
        assert!(world.tenant.result(session.id).await.expect("a read").is_some());
    }
    let mut told: Vec<_> = subject.outbox(world.org).await.into_iter().map(|message| message.payload).collect();
    told.sort();
    let mut expected: Vec<_> = live.iter().map(|session| session.id.to_string()).collect();
    expected.sort();
    assert_eq!(told, expected);
    assert_eq!(world.verified().await, before + EACH as u64);
}

/// The caller that makes the mistake gets the error, and nobody who happened to write at the same moment.
pub async fn a_session_id_that_is_taken_fails_alone(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let first = world.created().await;
    let mut writes = JoinSet::new();
    let mut good = Vec::new();
    for _ in 0..32 {
        let mut again = new(&first);
        "somebody else".clone_into(&mut again.session.created_by);
        let other = world.session();
        for (taken, new) in [(true, again), (false, new(&other))] {
            let tenant = world.tenant.clone();
            writes.spawn(async move { (taken, tenant.create_session(new).await) });
        }
        good.push(other);
    }
    while let Some(done) = writes.join_next().await {
        let (taken, done) = done.expect("no write panics");
        assert_eq!(done.is_err(), taken, "{done:?}");
    }
    assert_eq!(world.tenant.session(first.id).await.expect("a read"), Some(first));
    for session in good {
        assert_eq!(world.tenant.session(session.id).await.expect("a read"), Some(session));
    }
    assert_eq!(world.verified().await, 33);
}

pub async fn a_record_of_another_org_is_refused(subject: &dyn Subject) {
    let (world, other) = (World::new(subject).await, World::new(subject).await);
    let foreign = session(other.org);
    assert!(world.tenant.create_session(new(&foreign)).await.is_err());
    assert_eq!(world.tenant.session(foreign.id).await.expect("a read"), None);
    assert_eq!(other.tenant.session(foreign.id).await.expect("a read"), None);

    let own = world.created().await;
    let mut moved_away = own.clone();
    moved_away.org_id = other.org;
    assert!(world.tenant.update_session(update(&moved_away, Phase::Running)).await.is_err());
    assert_eq!(world.tenant.session(own.id).await.expect("a read"), Some(own));

    let (mut key, draft) = super::support::key(other.org, "foreign");
    assert!(world.tenant.create_key(key.clone(), draft.clone()).await.is_err());
    assert_eq!(world.system.key(key.id).await.expect("a read"), None);
    key.org = world.org;
    world.tenant.create_key(key, draft).await.expect("a key of its own org is recorded");
    assert_eq!((world.verified().await, other.verified().await), (2, 0));
}

pub async fn a_result_is_absent_until_it_is_recorded_and_then_stays(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let session = world.created().await;
    assert_eq!(world.tenant.result(session.id).await.expect("a read"), None);
    let mut end = update(&session, Phase::Failed);
    end.result = Some(result(session.id, Some(json!([]))));
    world.tenant.update_session(end.clone()).await.expect("a live session is updated");
    world.moved(&session, Phase::TornDown).await;
    assert_eq!(world.tenant.result(session.id).await.expect("a read"), end.result);
}

pub async fn an_absent_sandbox_leaves_the_recorded_one(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let session = world.created().await;
    for (given, recorded) in [(None, None), (Some("box"), Some("box")), (None, Some("box")), (Some("two"), Some("two"))]
    {
        let mut change = update(&session, Phase::Running);
        change.sandbox = given.map(ToOwned::to_owned);
        world.tenant.update_session(change).await.expect("a live session is updated");
        let unfinished = world.system.unfinished().await.expect("a read");
        let found = unfinished.into_iter().find(|unfinished| unfinished.session.id == session.id);
        assert_eq!(found.expect("it is not torn down").sandbox.as_deref(), recorded);
    }
}

/// Polled once, then dropped. A write that was not taken yet may be gone; one that was is there with all that belongs to
/// it.
pub async fn a_write_whose_caller_went_away_is_whole(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let (mut sessions, before) = (Vec::new(), 64);
    for _ in 0..before {
        sessions.push(world.created().await);
    }
    for session in &sessions {
        let mut change = update(session, Phase::Succeeded);
        change.result = Some(result(session.id, None));
        change.outbox = vec![message(&session.id.to_string())];
        let mut write = world.tenant.update_session(change);
        poll_fn(|context| {
            let _ = write.as_mut().poll(context);
            Poll::Ready(())
        })
        .await;
    }
    // What is asked for last is done last, or was never taken.
    let last = world.created().await;
    let told: Vec<_> = subject.outbox(world.org).await.into_iter().map(|message| message.payload).collect();
    let mut done = 0;
    for session in &sessions {
        let now = world.tenant.session(session.id).await.expect("a read").expect("it is there");
        let written = now.phase == Phase::Succeeded;
        assert_eq!(world.tenant.result(session.id).await.expect("a read").is_some(), written);
        assert_eq!(told.contains(&session.id.to_string()), written);
        assert_eq!(world.audit_of(session.id).await.len(), if written { 2 } else { 1 });
        done += u64::from(written);
    }
    assert_eq!(world.audit_of(last.id).await.len(), 1);
    assert_eq!(world.verified().await, before + done + 1);
}
