//! Webhooks out: what is told of a session's end, the log of deliveries, and the secret that an org's messages are signed
//! with. [`deliver`] takes them to their receivers.

pub(crate) mod deliver;

use model::{
    access::Caller,
    audit::Draft,
    gateway::Credential,
    webhook::{ROUND_MS, signature::SigningSecret},
};
use serde_json::json;
use store::{DeliveryFilter, OutboxMessage, WebhookSecretRecord};
use wire::{
    AuditSource, AuditType, DeliveryId, DeliveryPage, DeliveryStatus, OrgId, RotatedWebhookSecret, Session,
    SessionFinished, SessionResult, Timestamp, WebhookDelivery, WebhookEvent, WebhookEventType, WebhookSecretView,
};

use crate::{
    Engine, Inner, ListError, ReadError, UnsealError, WebhookSecretError,
    vault::{Owner, Place},
};

/// For how long messages are signed with the secret before the last as well: a receiver's deployment takes hours.
const OVERLAP_MS: i64 = 24 * 3_600_000;
/// How often a replacement is tried anew because another one came between.
const ATTEMPTS: u32 = 16;

/// The message that a session has ended, if its caller wants one.
pub(crate) fn finished(
    inner: &Inner,
    url: Option<&str>,
    session: &Session,
    result: &SessionResult,
) -> Option<OutboxMessage> {
    let url = url?.to_owned();
    let now = inner.clock.now();
    let event = WebhookEvent {
        kind: WebhookEventType::SessionFinished,
        timestamp: session.finished_at.unwrap_or(now),
        data: SessionFinished {
            session_id: session.id,
            org_id: session.org_id,
            outcome: result.outcome,
            kill_reason: result.kill_reason,
            fault: result.fault.clone(),
            exit_code: result.exit_code,
            labels: session.labels.clone(),
            created_at: session.created_at,
            started_at: session.started_at,
            finished_at: session.finished_at,
            usage: result.usage,
        },
    };
    Some(OutboxMessage {
        id: inner.ids.delivery(&inner.clock),
        session: session.id,
        kind: event.kind,
        url,
        payload: serde_json::to_string(&event).expect("contract types have string keys only"),
        created_at: now,
        until: end_of_round(now),
    })
}

fn end_of_round(now: Timestamp) -> Timestamp {
    Timestamp::from_millis(now.as_millis().saturating_add(ROUND_MS))
}

impl Engine {
    /// Deliveries of the org's messages, newest first.
    pub async fn deliveries(&self, caller: &Caller, filter: DeliveryFilter) -> Result<DeliveryPage, ListError> {
        Ok(self.inner.store.tenant(caller.org).deliveries(filter).await?)
    }

    /// Tries a delivery again, now and for another 24 hours, whatever became of it. The message keeps its id.
    pub async fn retry_delivery(&self, caller: &Caller, id: DeliveryId) -> Result<WebhookDelivery, ReadError> {
        let (tenant, now) = (self.inner.store.tenant(caller.org), self.inner.clock.now());
        let before = tenant.delivery(id).await?.ok_or(ReadError::NotFound)?;
        if !tenant.retry_delivery(id, now, end_of_round(now)).await? {
            return Err(ReadError::NotFound);
        }
        self.inner.outgoing.notify_one();
        // What was asked for: by now it may be on its way, or done.
        Ok(WebhookDelivery { status: DeliveryStatus::Pending, next_attempt_at: Some(now), finished_at: None, ..before })
    }

    /// What can be told of the secret that the org's messages are signed with.
    pub async fn webhook_secret(&self, caller: &Caller) -> Result<WebhookSecretView, ReadError> {
        let now = self.inner.clock.now();
        let record = self.inner.store.tenant(caller.org).webhook_secret().await?;
        Ok(WebhookSecretView {
            version: record.as_ref().map_or(0, |record| record.version),
            created_at: record.as_ref().map(|record| record.created_at),
            previous_until: record
                .and_then(|record| record.previous)
                .map(|(_, until)| until)
                .filter(|until| *until > now),
        })
    }

    /// Makes another secret and gives it out, once. The one before it signs along for a day.
    pub async fn rotate_webhook_secret(&self, caller: &Caller) -> Result<RotatedWebhookSecret, WebhookSecretError> {
        let inner = &self.inner;
        let tenant = inner.store.tenant(caller.org);
        for _ in 0..ATTEMPTS {
            let now = inner.clock.now();
            let stands = tenant.webhook_secret().await?;
            let secret = SigningSecret::new(inner.ids.bytes());
            let previous_until = stands.as_ref().map(|_| Timestamp::from_millis(now.as_millis() + OVERLAP_MS));
            let previous = stands.as_ref().map(|record| record.sealed.clone()).zip(previous_until);
            let version = stands.map_or(0, |record| record.version) + 1;
            let sealed = inner.sealed_webhook_secret(caller.org, version, &secret);
            let record = WebhookSecretRecord { version, sealed, created_at: now, previous };
            let draft = Draft {
                ts: now,
                kind: AuditType::WebhookSecretRotated,
                session_id: None,
                actor: caller.subject.to_string(),
                source: AuditSource::Platform,
                data: json!({ "version": version }),
            };
            if tenant.set_webhook_secret(record, vec![draft]).await? {
                let secret = secret.expose().to_owned();
                return Ok(RotatedWebhookSecret { secret, version, created_at: now, previous_until });
            }
        }
        Err(WebhookSecretError::Contended)
    }
}

/// Why a message cannot be signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsigned {
    /// The secret does not open.
    #[error("the org's webhook secret cannot be opened by this server; it has to be replaced")]
    Sealed(#[from] UnsealError),
    /// The store failed.
    #[error("the server could not reach its records")]
    Store(#[from] store::StoreError),
}

impl Inner {
    fn sealed_webhook_secret(&self, org: OrgId, version: u64, secret: &SigningSecret) -> Vec<u8> {
        let value = secret.clone().into_secret();
        let credential = Credential { value, ..Credential::default() };
        self.vault.seal(&self.ids, Place { org, of: Owner::Webhooks, version }, &credential)
    }

    /// The secrets that a message of the org is signed with now, the newest first. The first message of an org makes one;
    /// whoever wants to check signatures replaces it, and is given the new one.
    async fn signing_secrets(&self, org: OrgId) -> Result<Vec<SigningSecret>, Unsigned> {
        let (tenant, now) = (self.store.tenant(org), self.clock.now());
        let record = if let Some(record) = tenant.webhook_secret().await? {
            record
        } else {
            let sealed = self.sealed_webhook_secret(org, 1, &SigningSecret::new(self.ids.bytes()));
            let record = WebhookSecretRecord { version: 1, sealed, created_at: now, previous: None };
            if tenant.set_webhook_secret(record.clone(), Vec::new()).await? {
                record
            } else {
                tenant.webhook_secret().await?.unwrap_or(record)
            }
        };
        let opened = |sealed: &[u8], version| {
            let credential = self.vault.open(Place { org, of: Owner::Webhooks, version }, sealed)?;
            SigningSecret::try_from(credential.value).map_err(|_| UnsealError::Damaged)
        };
        let mut secrets = vec![opened(&record.sealed, record.version)?];
        if let Some((sealed, until)) = &record.previous
            && *until > now
        {
            // One that does not open any more is no reason to be silent: the receiver may have the other.
            secrets.extend(opened(sealed, record.version - 1).ok());
        }
        Ok(secrets)
    }
}
