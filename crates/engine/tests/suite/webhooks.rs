//! Webhooks on a clock that the tests move: receivers that are down, hang, redirect, are gone; what is told of it.

pub(super) mod receiver;

use std::time::Duration;

use engine::{CreateError, DeliveryFilter, Undelivered};
use model::webhook::signature::SigningSecret;
use store::Store;
use wire::{AuditType, DeliveryStatus, Outcome, WebhookEvent};

use self::receiver::{Behaviour, Place, TICK, URL};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// How long an attempt may take.
const ATTEMPT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_receiver_that_is_down_for_an_hour_is_told_once_it_is_back() {
    let place = Place::new().await;
    let start = place.now();
    place.receiver.behave(move |now, _| {
        if now.as_millis() - start.as_millis() < 3_600_000 {
            Behaviour::Fails(Undelivered::Unconnected { address: [203, 0, 113, 7].into(), why: "refused".into() })
        } else {
            Behaviour::Answers(204)
        }
    });
    let session = place.ended("# sim: exit 3").await;
    let delivery = place.follow(session.id, DAY).await;
    assert_eq!((delivery.status, delivery.next_attempt_at), (DeliveryStatus::Delivered, None));
    assert!((6..20).contains(&delivery.attempts), "{delivery:?}");
    let took = delivery.finished_at.unwrap().as_millis() - start.as_millis();
    // The pauses have grown to an hour by then, a fifth more or less.
    assert!((3_600_000..=3_600_000 + 4_320_000).contains(&took), "not long after it is back: {took} ms");

    let letters = place.receiver.letters();
    assert_eq!(letters.len(), delivery.attempts as usize);
    let ids: Vec<_> = letters.iter().map(|letter| letter.header("webhook-id")).collect();
    assert!(ids.iter().all(|id| *id == delivery.message_id), "{ids:?}");
    let event: WebhookEvent = serde_json::from_str(&letters[0].body).unwrap();
    assert_eq!((event.data.session_id, event.data.outcome), (session.id, Outcome::Failed));
    assert_eq!(event.data.exit_code, Some(3));
    let trail = place.trail(session.id).await;
    assert_eq!(trail.last().map(|event| event.kind), Some(AuditType::WebhookDelivered));
    assert_eq!(trail.last().unwrap().data["attempts"], delivery.attempts);
    store::verify(&place.store, session.org_id).await.unwrap();
}

#[tokio::test]
async fn what_fails_for_a_day_is_given_up_and_told() {
    for (behaviour, told) in [
        (Behaviour::Answers(500), "it answered 500"),
        (Behaviour::Redirects("http://169.254.169.254/"), "redirects are not followed"),
        (Behaviour::Fails(Undelivered::Refused("a metadata address".into())), "a metadata address"),
    ] {
        let place = Place::new().await;
        place.receiver.behave(move |_, _| behaviour.clone());
        let session = place.ended("# sim: exit 0").await;
        let start = place.now();
        let delivery = place.follow(session.id, 2 * DAY).await;
        assert_eq!(delivery.status, DeliveryStatus::Failed);
        let took = delivery.finished_at.unwrap().as_millis() - start.as_millis();
        assert!((86_400_000..=86_400_001).contains(&took), "a day, to its end: {took}");
        let last = delivery.last_attempt.unwrap();
        assert!(last.error.as_ref().unwrap().contains(told), "{last:?}");
        let letters = place.receiver.letters();
        assert!(letters.len() > 10 && letters.iter().all(|letter| letter.url.as_str() == URL), "sent elsewhere");
        let trail = place.trail(session.id).await;
        assert_eq!(trail.last().map(|event| event.kind), Some(AuditType::WebhookFailed));
        assert!(trail.last().unwrap().data["reason"].as_str().unwrap().contains(told));
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_receiver_that_hangs_is_given_up_in_bounded_time_and_tried_again() {
    let place = Place::new().await;
    place.receiver.behave(|_, tries| if tries == 1 { Behaviour::Hangs } else { Behaviour::Answers(200) });
    let session = place.ended("# sim: exit 0").await;
    place.receiver.tried(1).await;
    place.advance(ATTEMPT.checked_sub(TICK).unwrap()).await;
    assert_eq!(place.delivery(session.id).await.attempts, 0);
    place.advance(2 * TICK).await;
    place.until("it is given up", async || place.delivery(session.id).await.attempts == 1).await;
    let error = place.delivery(session.id).await.last_attempt.unwrap().error.unwrap();
    assert_eq!(error, "it did not answer in time");
    assert_eq!(place.follow(session.id, HOUR).await.status, DeliveryStatus::Delivered);
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_left_alone_until_somebody_wants_it_tried_again() {
    let place = Place::new().await;
    place.receiver.behave(|_, tries| Behaviour::Answers(if tries == 1 { 410 } else { 200 }));
    let session = place.ended("# sim: exit 0").await;
    let delivery = place.follow(session.id, HOUR).await;
    assert_eq!((delivery.status, delivery.attempts), (DeliveryStatus::Failed, 1));
    place.advance(DAY).await;
    let again = place.engine.retry_delivery(&place.caller, delivery.id).await.unwrap();
    assert_eq!((again.status, again.finished_at), (DeliveryStatus::Pending, None));
    let delivery = place.follow(session.id, HOUR).await;
    assert_eq!((delivery.status, delivery.attempts), (DeliveryStatus::Delivered, 2));
    let ids: Vec<_> = place.receiver.letters().iter().map(|letter| letter.header("webhook-id").to_owned()).collect();
    assert_eq!(ids, vec![delivery.message_id; 2]);
}

#[tokio::test]
async fn what_a_server_had_under_way_when_it_died_is_delivered_by_the_next_under_the_same_id() {
    let place = Place::new().await;
    place.receiver.behave(|_, tries| if tries == 1 { Behaviour::Hangs } else { Behaviour::Answers(200) });
    let session = place.ended("# sim: exit 0").await;
    place.receiver.tried(1).await;
    // The first server is still at it; the second knows, and waits until it cannot be any more.
    let next = place.another().await;
    place.advance(Duration::from_secs(6)).await;
    assert_eq!(place.receiver.letters().len(), 1);
    place.engine.shutdown(Duration::ZERO).await.unwrap();
    place.advance(Duration::from_mins(1)).await;
    place.receiver.tried(2).await;
    place.until("it is delivered", async || place.delivery(session.id).await.status == DeliveryStatus::Delivered).await;
    let letters = place.receiver.letters();
    assert_eq!(letters[0].header("webhook-id"), letters[1].header("webhook-id"));
    assert_eq!(letters[0].body, letters[1].body);
    drop(next);
}

#[tokio::test]
async fn a_session_that_a_crash_ended_is_told_of_by_the_next_server() {
    let place = Place::new().await;
    let session = place.started("# sim: hang").await;
    let next = place.after_a_crash().await;
    next.receiver.tried(1).await;
    next.until("it is delivered", async || next.delivery(session.id).await.status == DeliveryStatus::Delivered).await;
    let event: WebhookEvent = serde_json::from_str(&next.receiver.letters()[0].body).unwrap();
    assert_eq!(event.data.outcome, Outcome::Faulted);
    assert_eq!(event.data.session_id, session.id);
}

#[tokio::test]
async fn receivers_of_one_org_that_hang_hold_up_no_other_org() {
    let place = Place::new().await;
    place.receiver.behave(|_, _| Behaviour::Hangs);
    for _ in 0..6 {
        place.ended("# sim: exit 0").await;
    }
    place.receiver.tried(4).await;
    assert_eq!(place.receiver.letters().len(), 4, "of one org a few at once");
    place.receiver.behave(|_, _| Behaviour::Answers(200));
    let other = place.of_org("other").await;
    let session = place.ended_for(&other, "# sim: exit 0").await;
    place.receiver.tried(5).await;
    assert!(place.receiver.letters()[4].body.contains(&session.id.to_string()));
    place
        .until("the other org's is delivered", async || {
            let page = place.engine.deliveries(&other, DeliveryFilter { limit: 9, ..DeliveryFilter::default() }).await;
            page.unwrap().items[0].status == DeliveryStatus::Delivered
        })
        .await;
}

#[tokio::test]
async fn a_message_is_signed_with_the_new_secret_and_for_a_day_with_the_old_one() {
    let place = Place::new().await;
    let secret = async || {
        let rotated = place.engine.rotate_webhook_secret(&place.caller).await.unwrap();
        SigningSecret::try_from(model::secret::Secret::from(rotated.secret)).unwrap()
    };
    let (first, second) = (secret().await, secret().await);
    let signed = |at: usize, secret: &SigningSecret| {
        let letter = &place.receiver.letters()[at];
        let [id, time, signatures] =
            ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| letter.header(name).to_owned());
        secret.verifies(&id, &time, letter.body.as_bytes(), &signatures)
    };
    place.ended("# sim: exit 0").await;
    place.receiver.tried(1).await;
    assert!(signed(0, &second) && signed(0, &first));
    let seconds: i64 = place.receiver.letters()[0].header("webhook-timestamp").parse().unwrap();
    assert_eq!(seconds, place.now().as_millis() / 1000);
    let told = place.engine.webhook_secret(&place.caller).await.unwrap();
    assert_eq!((told.version, told.previous_until.is_some()), (2, true));
    place.advance(DAY).await;
    place.ended("# sim: exit 0").await;
    place.receiver.tried(2).await;
    assert!(signed(1, &second) && !signed(1, &first));
    assert_eq!(place.engine.webhook_secret(&place.caller).await.unwrap().previous_until, None);
    let text = std::fs::read(place.database()).unwrap();
    let shown = second.expose().strip_prefix("whsec_").unwrap().as_bytes();
    assert!(!text.windows(shown.len()).any(|window| window == shown), "the database has the secret");
    let org = place.caller.org;
    let filter = store::AuditFilter { session: None, after_seq: 0, limit: 100 };
    let log = place.store.tenant(org).audit(filter).await.unwrap();
    assert_eq!(log.iter().filter(|event| event.kind == AuditType::WebhookSecretRotated).count(), 2);
}

#[tokio::test]
async fn an_address_that_is_never_told_is_refused_when_it_is_asked_for() {
    let place = Place::new().await;
    for url in [
        "http://127.0.0.1/x",
        "https://169.254.169.254/latest/meta-data",
        "https://0xa9fea9fe/",
        "https://[::ffff:10.0.0.1]/",
        "https://localhost/",
        "https://me:secret@receiver.example.com/",
        "gopher://receiver.example.com/",
        "",
    ] {
        let refused = place.try_start("# sim: exit 0", url).await;
        let Err(CreateError::Invalid(faults)) = refused else { panic!("{url}: {refused:?}") };
        assert_eq!(faults.iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(), ["webhookUrl"], "{url}");
    }
    assert!(place.receiver.letters().is_empty());
}
