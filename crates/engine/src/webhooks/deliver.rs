//! Takes messages to their receivers: at least once each, those of one session in their order, again and again for a day.
//!
//! A message is taken from the store for a while (its lease), so that of several servers on one database one at a time
//! tries it. A server that dies in the middle leaves a lease that ends, and the message is tried again under the same id.

use std::{sync::Arc, time::Duration};

use model::{
    audit::Draft,
    webhook::{WebhookUrl, next_attempt, signature},
};
use serde_json::json;
use store::{Claim, Claimed, Settled, Settlement};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use wire::{AuditType, Timestamp, WebhookAttempt};

use crate::{Answer, Inner, Letter};

/// Messages under way at once. Each is a connection, and a few kilobytes.
const AT_ONCE: usize = 128;
/// Of one org: a few that hang must not keep others waiting.
const AT_ONCE_OF_ONE_ORG: u32 = 4;
/// How long an attempt may take, whatever the courier does. Couriers give up earlier, and say at what.
const ATTEMPT_PATIENCE: Duration = Duration::from_secs(20);
/// How long a message is this server's: longer than an attempt with its writing down.
const LEASE_MS: i64 = 60_000;
/// How long to wait for the next look when nothing is due: leases of servers that died end, and the time of day may be set.
const LOOK: Duration = Duration::from_secs(5);
/// Characters of an answer that are kept.
const MAX_EXCERPT: usize = 512;

/// Runs until the engine stops. What is under way then is tried again once its lease ends.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut under_way = JoinSet::new();
    loop {
        // From before the look: a clock that moves meanwhile makes the next one no later.
        let began = Instant::now();
        let pause = look(&inner, &mut under_way).await.unwrap_or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "webhooks cannot be looked for");
            LOOK
        });
        tokio::select! {
            () = inner.stopped.cancelled() => return,
            () = inner.outgoing.notified() => {}
            Some(_) = under_way.join_next(), if !under_way.is_empty() => {}
            () = sleep_until(began + pause) => {}
        }
    }
}

/// Takes what is due, and gives how long it is until the next.
async fn look(inner: &Arc<Inner>, under_way: &mut JoinSet<()>) -> Result<Duration, store::StoreError> {
    while under_way.try_join_next().is_some() {}
    let room = AT_ONCE.saturating_sub(under_way.len());
    if room == 0 {
        return Ok(LOOK);
    }
    let now = inner.clock.now();
    let lease = hex::encode(inner.ids.bytes::<16>());
    let claim = Claim {
        now,
        until: Timestamp::from_millis(now.as_millis() + LEASE_MS),
        lease: lease.clone(),
        limit: u32::try_from(room).unwrap_or(u32::MAX),
        per_org: AT_ONCE_OF_ONE_ORG,
    };
    for claimed in inner.store.system().claim_deliveries(claim).await? {
        under_way.spawn(deliver(Arc::clone(inner), claimed, lease.clone()));
    }
    let next = inner.store.system().next_delivery(now).await?;
    let until_next = next.map(|next| u64::try_from(next.as_millis() - now.as_millis()).unwrap_or(0));
    Ok(until_next.map_or(LOOK, Duration::from_millis).min(LOOK))
}

/// One attempt, and what becomes of it.
async fn deliver(inner: Arc<Inner>, claimed: Claimed, lease: String) {
    let (at, began) = (inner.clock.now(), Instant::now());
    let answered = attempt(&inner, &claimed, at).await;
    let now = inner.clock.now();
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (attempt, gone) = match answered {
        Ok(Answer { status, body }) => {
            let excerpt = Some(excerpt(&body)).filter(|text| !text.is_empty());
            (WebhookAttempt { at, took_ms, status: Some(status), error: fault(status), excerpt }, status == GONE)
        }
        Err(error) => (WebhookAttempt { at, took_ms, status: None, error: Some(error), excerpt: None }, false),
    };
    let (tries, chance) = (claimed.tries.saturating_add(1), u16::from_be_bytes(inner.ids.bytes()));
    let settled = match (&attempt.error, next_attempt(now, claimed.until, tries, chance)) {
        (None, _) => Settled::Delivered,
        (Some(_), Some(next)) if !gone => Settled::Again(next),
        (Some(_), _) => Settled::Failed,
    };
    let data = json!({
        "delivery": claimed.id, "messageId": claimed.id.message_id(), "attempts": claimed.attempts.saturating_add(1),
        "status": attempt.status, "reason": attempt.error,
    });
    let (word, kind) = match settled {
        Settled::Delivered => ("delivered", Some(AuditType::WebhookDelivered)),
        Settled::Failed => ("failed", Some(AuditType::WebhookFailed)),
        Settled::Again(_) => ("again", None),
    };
    metrics::counter!("enclave_webhook_attempts_total", "outcome" => word).increment(1);
    let drafts = kind.map(|kind| Draft::platform(now, kind, claimed.session, data)).into_iter().collect();
    let settlement = Settlement { id: claimed.id, lease, attempt, settled, now, drafts };
    match inner.store.tenant(claimed.org).settle_delivery(settlement).await {
        Ok(true) => {}
        Ok(false) => tracing::warn!(delivery = %claimed.id, "an attempt took longer than its lease"),
        // The lease ends, and it is tried again.
        Err(error) => {
            tracing::warn!(delivery = %claimed.id, error = &error as &dyn std::error::Error, "an attempt is not recorded");
        }
    }
}

/// The receiver's answer, or why there is none.
async fn attempt(inner: &Inner, claimed: &Claimed, at: Timestamp) -> Result<Answer, String> {
    let url: WebhookUrl = claimed.url.parse().map_err(|why| format!("its URL {why}"))?;
    let secrets = inner.signing_secrets(claimed.org).await.map_err(|error| error.to_string())?;
    let (id, seconds) = (claimed.id.message_id(), at.as_millis().div_euclid(1000));
    let signatures: Vec<_> =
        secrets.iter().map(|secret| secret.sign(&id, seconds, claimed.payload.as_bytes())).collect();
    let headers = vec![
        (signature::ID, id),
        (signature::TIMESTAMP, seconds.to_string()),
        (signature::SIGNATURE, signatures.join(" ")),
    ];
    let letter = Letter { url, headers, body: claimed.payload.clone() };
    match timeout(ATTEMPT_PATIENCE, inner.courier.carry(&letter)).await {
        Ok(answered) => answered.map_err(|error| error.to_string()),
        Err(_) => Err(crate::Undelivered::TimedOut.to_string()),
    }
}

/// The receiver wants no more of this.
const GONE: u16 = 410;

/// Why an answer of this status is no delivery.
fn fault(status: u16) -> Option<String> {
    match status {
        200..=299 => None,
        300..=399 => Some(format!("it answered {status}, a redirect; redirects are not followed")),
        GONE => Some("it answered 410: it is gone for good".to_owned()),
        _ => Some(format!("it answered {status}")),
    }
}

/// A stranger's text: short, and printable.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.trim().chars().take(MAX_EXCERPT).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_delivery_when_it_says_so_and_nothing_else_is() {
        for (status, delivered) in [(200, true), (204, true), (299, true), (199, false), (300, false), (500, false)] {
            assert_eq!(fault(status).is_none(), delivered, "{status}");
        }
        assert!(fault(302).is_some_and(|text| text.contains("not followed")));
    }

    #[test]
    fn an_excerpt_is_short_and_printable() {
        let body = format!(" <b>\u{1b}[31m\0\u{e4}\r\n{}", "x".repeat(10_000)).into_bytes();
        let text = excerpt(&[body, vec![0xff]].concat());
        assert!(text.starts_with("<b>\u{fffd}[31m\u{fffd}\u{e4}\u{fffd}\u{fffd}x"), "{text}");
        assert_eq!(text.chars().count(), MAX_EXCERPT);
    }
}
