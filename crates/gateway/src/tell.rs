//! What this process tells the server: its decisions, and how much has gone through.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use jiff::Timestamp as Now;
use model::{
    egress::Refused,
    gateway::{FromGateway, GatewayEvent},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use wire::{AuditSource, AuditType, Denial, Timestamp};

/// Given to everything that decides.
#[derive(Debug, Clone)]
pub(crate) struct Teller {
    said: mpsc::Sender<FromGateway>,
    bytes: Arc<AtomicU64>,
}

impl Teller {
    /// One that says what it is told into `said`.
    pub(crate) fn new(said: mpsc::Sender<FromGateway>) -> Self {
        Self { said, bytes: Arc::default() }
    }

    /// Tells a decision. Waits while the server does not listen; nothing that it allows may be done before it returns.
    pub(crate) async fn tell(&self, kind: AuditType, source: AuditSource, data: Value, denial: Option<Denial>) {
        let ts = Timestamp::from_millis(Now::now().as_millisecond());
        // Without the server there is nobody to allow anything: the process is about to end.
        let _ = self.said.send(FromGateway::Event(GatewayEvent { ts, kind, source, data, denial })).await;
    }

    /// Tells that something was refused.
    pub(crate) async fn denied(&self, attempted: &str, refused: &Refused) {
        let mut data = json!({
            "attempted": attempted, "reason": refused.reason.as_str(), "detail": refused.detail,
        });
        if let Some(rule) = &refused.allowed_by {
            data["allowedBy"] = Value::String(rule.clone());
        }
        let denial = Some(refused.denial(attempted));
        self.tell(AuditType::EgressDenied, AuditSource::Gateway, data, denial).await;
    }

    /// Counts bytes that went through, in either direction.
    pub(crate) fn count(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How many there were.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
