//! What this process tells the server: its decisions, and how much has gone through.

mod repeats;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use jiff::Timestamp as Now;
use model::{
    egress::{Reason, Refused},
    gateway::{FromGateway, GatewayEvent},
};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use wire::{AuditSource, AuditType, Denial, Timestamp};

use repeats::{Heard, Key, Repeats};

/// Longest `attempted`, and longest detail; both may hold what a workload named.
const MAX_TEXT_BYTES: usize = 512;

/// Given to everything that decides.
#[derive(Debug, Clone)]
pub(crate) struct Teller {
    said: mpsc::Sender<FromGateway>,
    /// How many messages were written to the server, in the order in which they were said.
    written: watch::Receiver<u64>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// How many messages were said.
    number: Mutex<u64>,
    bytes: AtomicU64,
    /// What of `bytes` the server has heard of.
    reported: AtomicU64,
    repeats: Mutex<Repeats>,
}

impl Teller {
    /// One that says what it is told into `said`, and counts as written whatever was said.
    #[cfg(test)]
    pub(crate) fn new(said: mpsc::Sender<FromGateway>) -> Self {
        Self::writing(said, watch::channel(u64::MAX).1)
    }

    /// One that says what it is told into `said`, and waits until it was written. Everything that is said into `said` has
    /// to be said by it.
    pub(crate) fn writing(said: mpsc::Sender<FromGateway>, written: watch::Receiver<u64>) -> Self {
        Self { said, written, shared: Arc::default() }
    }

    /// Says something, and returns when it was written into the control socket: from then on it reaches the server
    /// whatever becomes of this process.
    pub(crate) async fn say(&self, message: FromGateway) {
        // Without the server there is nobody to allow anything: the process is about to end.
        let Ok(place) = self.said.reserve().await else { return unheard().await };
        let number = {
            let mut number = self.shared.number.lock().unwrap_or_else(PoisonError::into_inner);
            place.send(message);
            *number += 1;
            *number
        };
        if self.written.clone().wait_for(|written| *written >= number).await.is_err() {
            unheard().await;
        }
    }

    /// Tells a decision. Waits while the server does not listen; nothing that it allows may be done before it returns.
    pub(crate) async fn tell(&self, kind: AuditType, source: AuditSource, data: Value, denial: Option<Denial>) {
        let ts = Timestamp::from_millis(Now::now().as_millisecond());
        self.say(FromGateway::Event(GatewayEvent { ts, kind, source, data, denial })).await;
    }

    /// Tells that something was refused: the first time at once, then now and then how often it was.
    pub(crate) async fn denied(&self, attempted: &str, refused: &Refused) {
        self.denied_as(AuditSource::Gateway, attempted, refused).await;
    }

    /// The same of something that only the runner has seen.
    pub(crate) async fn claimed(&self, attempted: &str, refused: &Refused) {
        self.denied_as(AuditSource::Runner, attempted, refused).await;
    }

    async fn denied_as(&self, source: AuditSource, attempted: &str, refused: &Refused) {
        let attempted = clamp(attempted);
        let key = Key { attempted: attempted.to_owned(), reason: refused.reason, source };
        let heard = self.repeats().hear(key, Instant::now());
        match heard {
            Heard::First => {}
            Heard::Again => return,
            Heard::OneTooMany => return self.too_many().await,
        }
        self.refusal(source, attempted, refused).await;
    }

    async fn too_many(&self) {
        let detail =
            format!("this session was refused {} different things; more are only counted", repeats::MAX_DISTINCT);
        self.refusal(AuditSource::Gateway, "more", &Refused::flat(Reason::Quota, detail)).await;
    }

    /// As an event, and for the session's result.
    async fn refusal(&self, source: AuditSource, attempted: &str, refused: &Refused) {
        let detail = clamp(&refused.detail);
        let mut data = json!({ "attempted": attempted, "reason": refused.reason.as_str(), "detail": detail });
        if let Some(rule) = &refused.allowed_by {
            data["allowedBy"] = Value::String(rule.clone());
        }
        let denial = Denial {
            attempted: attempted.to_owned(),
            reason: detail.to_owned(),
            allowed_by: refused.allowed_by.clone(),
        };
        self.tell(AuditType::EgressDenied, source, data, Some(denial)).await;
    }

    /// Tells what has been going on. Called every second.
    pub(crate) async fn beat(&self) {
        let due = self.repeats().due(Instant::now());
        self.told_again(due).await;
        let bytes = self.bytes();
        if self.shared.reported.swap(bytes, Ordering::Relaxed) != bytes {
            self.say(FromGateway::Usage { egress_bytes: bytes }).await;
        }
    }

    /// Tells every repeat that was not told yet.
    pub(crate) async fn last_words(&self) {
        let (rest, uncounted) = self.repeats().rest();
        self.told_again(rest).await;
        if uncounted > 0 {
            let detail = "different things that were refused and not listed";
            let data = json!({
                "attempted": "more", "reason": Reason::Quota.as_str(), "detail": detail, "count": uncounted,
            });
            self.tell(AuditType::EgressDenied, AuditSource::Gateway, data, None).await;
        }
    }

    async fn told_again(&self, repeats: Vec<(Key, u64)>) {
        for (Key { attempted, reason, source }, count) in repeats {
            let data = json!({
                "attempted": attempted, "reason": reason.as_str(), "detail": "refused again", "count": count,
            });
            // In the result it was listed the first time.
            self.tell(AuditType::EgressDenied, source, data, None).await;
        }
    }

    /// Counts bytes that went through, in either direction.
    pub(crate) fn count(&self, bytes: u64) {
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How many there were.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    fn repeats(&self) -> std::sync::MutexGuard<'_, Repeats> {
        self.shared.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What could not be told must not be done either.
async fn unheard() {
    std::future::pending::<()>().await;
}

/// The beginning of a text that may be long.
fn clamp(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}

#[cfg(test)]
mod tests;
