//! Turns: recorded with their audit events, changed until they have ended, in pages that stay small.

use wire::{AuditType, Phase, SessionId, TurnStatus, TurnValue};

use super::{
    Subject,
    support::{World, draft, kinds, now},
};
use crate::{StoreError, TURN_PAGE_BYTES, TurnFilter, TurnRecord, UpdateError};

/// A turn of a session, and its audit event.
pub fn record(session: SessionId, number: u32, status: TurnStatus) -> TurnRecord {
    let mut turn = wire::Turn::queued(session, number, format!("x = {number}"), 1000, now());
    turn.status = status;
    let kind = if status.has_ended() { AuditType::TurnCompleted } else { AuditType::TurnStarted };
    TurnRecord { turn, drafts: vec![draft(kind, session)] }
}

pub async fn a_turn_is_read_back_as_it_was_given_with_its_audit_events(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let session = world.created().await.id;
    let started = world.tenant.record_turn(record(session, 1, TurnStatus::Running)).await.expect("it is recorded");
    assert_eq!(kinds(&started), [AuditType::TurnStarted]);
    let open = world.tenant.open_turns(session).await.expect("a read");
    assert_eq!(open, [record(session, 1, TurnStatus::Running).turn]);
    let mut ended = record(session, 1, TurnStatus::Completed);
    ended.turn.value = Some(TurnValue { plain: Some("'é\u{0}'".into()), ..TurnValue::default() });
    ended.turn.stdout_tail = "out\n".into();
    let events = world.tenant.record_turn(ended.clone()).await.expect("it is recorded");
    assert_eq!(kinds(&events), [AuditType::TurnCompleted]);
    assert_eq!(world.tenant.turn(session, 1).await.expect("a read"), Some(ended.turn));
    assert_eq!(world.tenant.open_turns(session).await.expect("a read"), []);
    assert_eq!(world.tenant.turn(session, 2).await.expect("a read"), None);
    assert_eq!(world.audit_of(session).await[1..], [started, events].concat());
    world.verified().await;
}

pub async fn a_turn_that_has_ended_is_never_changed_again(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let session = world.created().await.id;
    let ended = record(session, 1, TurnStatus::Failed);
    world.tenant.record_turn(ended.clone()).await.expect("it is recorded");
    let before = world.verified().await;
    for status in [TurnStatus::Queued, TurnStatus::Running, TurnStatus::Completed] {
        let refused = world.tenant.record_turn(record(session, 1, status)).await;
        assert!(matches!(refused, Err(UpdateError::NotLive(id)) if id == session), "{refused:?}");
    }
    assert_eq!(world.tenant.turn(session, 1).await.expect("a read"), Some(ended.turn));
    assert_eq!(world.verified().await, before);
}

pub async fn only_a_session_that_is_not_torn_down_gets_turns(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let gone = world.created().await;
    world.moved(&gone, Phase::TornDown).await;
    let before = world.verified().await;
    for session in [gone.id, world.session().id] {
        let refused = world.tenant.record_turn(record(session, 1, TurnStatus::Running)).await;
        assert!(matches!(refused, Err(UpdateError::NotLive(id)) if id == session), "{refused:?}");
        assert_eq!(world.tenant.turn(session, 1).await.expect("a read"), None);
    }
    assert_eq!(world.verified().await, before);
}

pub async fn turns_are_listed_in_order_in_pages_without_gaps(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let (session, other) = (world.created().await.id, world.created().await.id);
    for number in [3, 1, 5, 2, 4] {
        for session in [session, other] {
            world.tenant.record_turn(record(session, number, TurnStatus::Completed)).await.expect("it is recorded");
        }
    }
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let filter = TurnFilter { session, cursor: cursor.take(), limit: 2 };
        let page = world.tenant.turns(filter).await.expect("a page");
        assert!(page.items.iter().all(|turn| turn.session_id == session));
        seen.extend(page.items.iter().map(|turn| turn.number));
        cursor = page.next_cursor;
        let Some(cursor) = &cursor else { break };
        let foreign = TurnFilter { session: other, cursor: Some(cursor.clone()), limit: 2 };
        let refused = world.tenant.turns(foreign).await;
        assert!(matches!(refused, Err(StoreError::BadCursor)), "a cursor belongs to one session: {refused:?}");
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
}

pub async fn a_page_of_large_turns_ends_early(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let session = world.created().await.id;
    for number in 1..=3 {
        let mut large = record(session, number, TurnStatus::Completed);
        large.turn.code = "x".repeat(TURN_PAGE_BYTES * 2 / 3);
        world.tenant.record_turn(large).await.expect("it is recorded");
    }
    let (mut pages, mut cursor) = (Vec::new(), None);
    loop {
        let page = world.tenant.turns(TurnFilter { session, cursor, limit: 100 }).await.expect("a page");
        pages.push(page.items.len());
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(pages, [1, 1, 1], "one at least, or a page would never go on");
}
