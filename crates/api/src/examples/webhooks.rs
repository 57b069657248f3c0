//! Webhooks in the document.

use uuid::Uuid;
use wire::{
    DeliveryId, DeliveryStatus, RotatedWebhookSecret, WebhookAttempt, WebhookDelivery, WebhookEventType,
    WebhookSecretView,
};

use super::{at, id};

const DAY_MS: i64 = 86_400_000;

pub(super) fn delivery() -> WebhookDelivery {
    let delivery = DeliveryId::from_uuid(Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057));
    WebhookDelivery {
        id: delivery,
        message_id: delivery.message_id(),
        session_id: id(),
        kind: WebhookEventType::SessionFinished,
        url: "https://receiver.example.com/hooks/enclave".into(),
        status: DeliveryStatus::Pending,
        attempts: 1,
        created_at: at(260),
        next_attempt_at: Some(at(5_390)),
        last_attempt: Some(WebhookAttempt {
            at: at(270),
            took_ms: 120,
            status: Some(500),
            error: Some("it answered 500".into()),
            excerpt: Some("internal error".into()),
        }),
        finished_at: None,
    }
}

pub(super) fn secret() -> WebhookSecretView {
    WebhookSecretView { version: 2, created_at: Some(at(0)), previous_until: Some(at(DAY_MS)) }
}

pub(super) fn rotated() -> RotatedWebhookSecret {
    RotatedWebhookSecret {
        secret: "whsec_<base64 of 32 random bytes>".into(),
        version: 2,
        created_at: at(0),
        previous_until: Some(at(DAY_MS)),
    }
}
