//! Messages: taken by one, in order, and settled by who took them.

use wire::{AuditType, DeliveryStatus, Phase, SessionId, Timestamp, WebhookAttempt};

use super::{
    Subject,
    support::{World, draft, message, now, session_id, update},
};
use crate::{Claim, Claimed, DeliveryFilter, Old, OutboxMessage, Settled, Settlement, StoreError, WebhookSecretRecord};

const MINUTE: i64 = 60_000;

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_millis(now().as_millis() + minutes * MINUTE)
}

/// A session of the world's org that ends with these messages, of which each may be of another session.
async fn posted(world: &World, messages: &[OutboxMessage]) {
    let session = world.created().await;
    let mut end = update(&session, Phase::Succeeded);
    end.outbox = messages.to_vec();
    world.tenant.update_session(end).await.expect("a live session is updated");
}

fn of(session: SessionId, payload: &str) -> OutboxMessage {
    OutboxMessage { session, ..message(payload) }
}

/// Takes what is due, for five minutes; only what is of this world's org is looked at.
async fn claimed(world: &World, minutes: i64, lease: &str) -> Vec<Claimed> {
    let claim = Claim { now: at(minutes), until: at(minutes + 5), lease: lease.to_owned(), limit: 1000, per_org: 2 };
    let claimed = world.system.claim_deliveries(claim).await.expect("deliveries are taken");
    claimed.into_iter().filter(|claimed| claimed.org == world.org).collect()
}

fn payloads(claimed: &[Claimed]) -> Vec<&str> {
    let mut payloads: Vec<_> = claimed.iter().map(|claimed| claimed.payload.as_str()).collect();
    payloads.sort_unstable();
    payloads
}

/// What is recorded of an attempt on a delivery.
pub fn settlement(claimed: &Claimed, lease: &str, settled: Settled) -> Settlement {
    let error = (settled != Settled::Delivered).then(|| "it answered 500".to_owned());
    let attempt = WebhookAttempt { at: now(), took_ms: 7, status: Some(500), error, excerpt: Some("\u{fffd}<".into()) };
    let drafts = match settled {
        Settled::Delivered => vec![draft(AuditType::WebhookDelivered, claimed.session)],
        Settled::Failed => vec![draft(AuditType::WebhookFailed, claimed.session)],
        Settled::Again(_) => Vec::new(),
    };
    Settlement { id: claimed.id, lease: lease.to_owned(), attempt, settled, now: at(1), drafts }
}

async fn settle(world: &World, claimed: &Claimed, lease: &str, settled: Settled) -> bool {
    world.tenant.settle_delivery(settlement(claimed, lease, settled)).await.expect("an attempt is recorded")
}

pub async fn a_message_is_taken_once_until_its_lease_ends(subject: &dyn Subject) {
    let world = World::new(subject).await;
    posted(&world, &[message("one")]).await;
    assert_eq!(claimed(&world, -1, "early").await, [], "it is not due");
    let first = claimed(&world, 0, "first").await;
    assert_eq!(payloads(&first), ["one"]);
    assert_eq!((first[0].attempts, first[0].tries), (0, 0));
    let other = World { system: subject.reopen().await.system(), ..world.clone() };
    assert_eq!(claimed(&other, 4, "second").await, [], "it is taken, for other servers too");
    let again = claimed(&other, 5, "third").await;
    assert_eq!(payloads(&again), ["one"], "whoever took it is gone");
    assert!(!settle(&world, &first[0], "first", Settled::Delivered).await, "it is another's now");
    assert!(settle(&world, &again[0], "third", Settled::Delivered).await);
    assert!(!settle(&world, &again[0], "third", Settled::Failed).await, "it is settled");
    assert_eq!(claimed(&world, 1000, "fourth").await, []);
    let told: Vec<_> = world.audit_of(first[0].session).await.into_iter().map(|event| event.kind).collect();
    assert_eq!(told, [AuditType::WebhookDelivered]);
    world.verified().await;
}

pub async fn concurrent_takers_share_what_is_due(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let messages: Vec<_> = (0..40).map(|n| message(&n.to_string())).collect();
    posted(&world, &messages).await;
    let others = [world.clone(), World { system: subject.reopen().await.system(), ..world.clone() }];
    let mut seen = Vec::new();
    for round in 0..20 {
        let leases = [format!("a{round}"), format!("b{round}")];
        let [a, b] = &others;
        let taken = tokio::join!(claimed(a, 0, &leases[0]), claimed(b, 0, &leases[1]));
        assert_eq!(taken.0.len() + taken.1.len(), 2, "two of one org at once, whoever takes them");
        for (claimed, lease) in taken.0.iter().map(|c| (c, &leases[0])).chain(taken.1.iter().map(|c| (c, &leases[1]))) {
            seen.push(claimed.payload.parse::<u32>().expect("a number"));
            assert!(settle(&world, claimed, lease, Settled::Delivered).await);
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
}

pub async fn messages_of_one_session_go_in_their_order_and_hold_up_no_other(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let (one, other) = (session_id(), session_id());
    posted(&world, &[of(one, "1"), of(one, "2"), of(other, "a")]).await;
    let first = claimed(&world, 0, "first").await;
    assert_eq!(payloads(&first), ["1", "a"]);
    for claimed in &first {
        let settled = if claimed.payload == "1" { Settled::Again(at(3)) } else { Settled::Delivered };
        assert!(settle(&world, claimed, "first", settled).await);
    }
    assert_eq!(claimed(&world, 2, "second").await, [], "the second waits for the first");
    assert_eq!(world.system.next_delivery(at(2)).await.expect("a read"), Some(at(3)));
    let again = claimed(&world, 3, "third").await;
    assert_eq!((payloads(&again), again[0].attempts, again[0].tries), (vec!["1"], 1, 1));
    assert!(settle(&world, &again[0], "third", Settled::Failed).await);
    assert_eq!(payloads(&claimed(&world, 4, "fourth").await), ["2"], "what is given up holds up nobody");
}

pub async fn a_delivery_shows_what_became_of_it_and_is_tried_again_by_hand(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let posted_message = message("one");
    posted(&world, std::slice::from_ref(&posted_message)).await;
    let (tenant, id) = (&world.tenant, posted_message.id);
    let fresh = tenant.delivery(id).await.expect("a read").expect("it is there");
    assert_eq!((fresh.id, fresh.session_id, fresh.status), (id, posted_message.session, DeliveryStatus::Pending));
    assert_eq!((fresh.next_attempt_at, fresh.attempts, fresh.last_attempt), (Some(now()), 0, None));
    assert_eq!((fresh.url, fresh.message_id), (posted_message.url, id.message_id()));
    let taken = claimed(&world, 0, "first").await;
    assert!(settle(&world, &taken[0], "first", Settled::Failed).await);
    let failed = tenant.delivery(id).await.expect("a read").expect("it is there");
    assert_eq!((failed.status, failed.attempts, failed.next_attempt_at), (DeliveryStatus::Failed, 1, None));
    assert_eq!(failed.finished_at, Some(at(1)));
    assert_eq!(failed.last_attempt, Some(settlement(&taken[0], "", Settled::Failed).attempt));
    assert!(tenant.retry_delivery(id, at(10), at(20)).await.expect("a write"));
    let again = tenant.delivery(id).await.expect("a read").expect("it is there");
    assert_eq!((again.status, again.attempts, again.finished_at), (DeliveryStatus::Pending, 1, None));
    assert_eq!(again.next_attempt_at, Some(at(10)));
    let taken = claimed(&world, 10, "second").await;
    assert_eq!((taken[0].attempts, taken[0].tries, taken[0].until), (1, 0, at(20)));
    let absent = message("absent").id;
    assert!(!tenant.retry_delivery(absent, at(10), at(20)).await.expect("a write"));
    assert_eq!(tenant.delivery(absent).await.expect("a read"), None);
}

pub async fn what_is_over_is_forgotten_when_it_is_old_and_what_waits_is_not(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let (over, waits) = (message("over"), message("waits"));
    posted(&world, std::slice::from_ref(&over)).await;
    let taken = claimed(&world, 0, "first").await;
    assert!(settle(&world, &taken[0], "first", Settled::Delivered).await);
    posted(&world, std::slice::from_ref(&waits)).await;
    let old = |before| Old { keys: now(), deliveries: before };
    assert_eq!(world.system.forget(old(at(1))).await.expect("a write"), 0, "it was over just then");
    assert_eq!(world.system.forget(old(at(2))).await.expect("a write"), 1);
    assert_eq!(world.tenant.delivery(over.id).await.expect("a read"), None);
    assert!(world.tenant.delivery(waits.id).await.expect("a read").is_some());
}

pub async fn deliveries_are_listed_newest_first_and_filtered(subject: &dyn Subject) {
    let (world, other) = (World::new(subject).await, World::new(subject).await);
    let messages: Vec<_> = (0..5).map(|n| message(&n.to_string())).collect();
    posted(&world, &messages).await;
    posted(&other, &[message("theirs"), message("theirs too")]).await;
    let mut seen = Vec::new();
    let mut filter = DeliveryFilter { limit: 2, ..DeliveryFilter::default() };
    loop {
        let page = world.tenant.deliveries(filter.clone()).await.expect("a page");
        seen.extend(page.items.into_iter().map(|delivery| delivery.id));
        filter.cursor = page.next_cursor;
        if filter.cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, messages.iter().rev().map(|message| message.id).collect::<Vec<_>>());
    let taken = claimed(&world, 0, "first").await;
    assert!(settle(&world, &taken[0], "first", Settled::Delivered).await);
    for (session, status, found) in [
        (Some(taken[0].session), None, 1),
        (None, Some(DeliveryStatus::Pending), 4),
        (Some(taken[0].session), Some(DeliveryStatus::Failed), 0),
    ] {
        let filter = DeliveryFilter { limit: 10, session, status, cursor: None };
        let page = world.tenant.deliveries(filter).await.expect("a page");
        assert_eq!((page.items.len(), page.next_cursor), (found, None));
    }
    let theirs = other.tenant.deliveries(DeliveryFilter { limit: 1, ..DeliveryFilter::default() }).await;
    let cursor = theirs.expect("a page").next_cursor;
    let refused = world.tenant.deliveries(DeliveryFilter { cursor, limit: 1, ..DeliveryFilter::default() }).await;
    assert!(matches!(refused, Err(StoreError::BadCursor)), "{refused:?}");
}

pub async fn no_org_reaches_anothers_deliveries_or_secret(subject: &dyn Subject) {
    let (victim, thief) = (World::new(subject).await, World::new(subject).await);
    let message = message("one");
    posted(&victim, std::slice::from_ref(&message)).await;
    victim.tenant.set_webhook_secret(secret(1), Vec::new()).await.expect("a secret is recorded");
    let taken = claimed(&victim, 0, "first").await;
    assert_eq!(thief.tenant.delivery(message.id).await.expect("a read"), None);
    let all = DeliveryFilter { limit: 10, ..DeliveryFilter::default() };
    assert_eq!(thief.tenant.deliveries(all).await.expect("a page").items, []);
    assert!(!thief.tenant.retry_delivery(message.id, at(9), at(9)).await.expect("a write"));
    assert!(!settle(&thief, &taken[0], "first", Settled::Failed).await);
    assert_eq!(thief.tenant.webhook_secret().await.expect("a read"), None);
    let stands = victim.tenant.delivery(message.id).await.expect("a read").expect("it is there");
    assert_eq!((stands.status, stands.attempts), (DeliveryStatus::Pending, 0));
    assert!(settle(&victim, &taken[0], "first", Settled::Delivered).await);
}

fn secret(version: u64) -> WebhookSecretRecord {
    let previous = (version > 1).then(|| (vec![1, 2], at(5)));
    WebhookSecretRecord { version, sealed: (0..=255).collect(), created_at: now(), previous }
}

pub async fn a_webhook_secret_is_replaced_by_one_version_at_a_time(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let tenant = &world.tenant;
    assert_eq!(tenant.webhook_secret().await.expect("a read"), None);
    for (version, made) in [(2, false), (1, true), (1, false), (3, false), (2, true)] {
        let draft = draft(AuditType::WebhookSecretRotated, session_id());
        assert_eq!(tenant.set_webhook_secret(secret(version), vec![draft]).await.expect("a write"), made, "{version}");
    }
    assert_eq!(tenant.webhook_secret().await.expect("a read"), Some(secret(2)));
    let of = format!("webhooks of {}", world.org);
    assert!(world.system.sealed().await.expect("a read").contains(&(of, secret(2).sealed)));
    assert_eq!(world.verified().await, 2);
}

pub async fn where_to_tell_of_a_session_is_known_until_its_end(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let session = world.session();
    let url = Some("https://receiver.example.com/\u{e4}".to_owned());
    let new = crate::NewSession { webhook_url: url.clone(), ..super::support::new(&session) };
    world.tenant.create_session(new).await.expect("a session is recorded");
    world.moved(&session, Phase::Running).await;
    let unfinished = world.system.unfinished().await.expect("a read");
    let found = unfinished.iter().find(|unfinished| unfinished.session.id == session.id).expect("it is unfinished");
    assert_eq!(found.webhook_url, url);
}
