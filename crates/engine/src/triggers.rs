//! Triggers: made, changed, deleted, and fired by hand or by a signed call. [`scheduler`] fires those with a schedule, and
//! those that wait; [`fire`] is the one way to a session.

mod check;
mod fire;
pub(crate) mod scheduler;

use model::{
    access::Caller,
    audit::Draft,
    gateway::Credential,
    secret::Secret,
    trigger::{
        self,
        schedule::{self, Schedule},
    },
    webhook::signature::{SECRET_BYTES, SigningSecret},
};
use serde_json::{Value, json};
use store::{NextFiring, TriggerChange, TriggerFilter, TriggerRecord};
use wire::{
    AuditSource, AuditType, CreateTrigger, FieldError, FiringCause, OrgId, Timestamp, Trigger, TriggerId, TriggerKind,
    TriggerPage, TriggerRun, TriggerRuns, TriggerWithSecret, UpdateTrigger,
};

use self::fire::Asked;
use crate::{
    Engine, FireError, HookError, Inner, ListError, ReadError, TriggerError, UnsealError,
    vault::{Owner, Place},
};

/// Firings that are shown of a trigger.
const RUNS: u32 = 50;
/// How often a change is decided anew because another one came between.
const ATTEMPTS: u32 = 16;
/// How far the time of a signed call may be from ours, in seconds: what Standard Webhooks recommends.
const WINDOW: i64 = 300;
/// For how long the id of a call is remembered, in milliseconds: senders try again for as long, under the same id.
const REMEMBERED_MS: i64 = 24 * 3_600_000;
/// Bytes of a call's id.
const MAX_MESSAGE_ID: usize = 256;

/// What a call to a trigger says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct HookHeaders<'a> {
    /// `webhook-id`.
    pub id: &'a str,
    /// `webhook-timestamp`.
    pub timestamp: &'a str,
    /// `webhook-signature`.
    pub signature: &'a str,
}

impl Engine {
    /// Makes a trigger. `shape` is what could not be read of the request.
    pub async fn create_trigger(
        &self,
        caller: &Caller,
        request: CreateTrigger,
        shape: Vec<FieldError>,
    ) -> Result<TriggerWithSecret, TriggerError> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let faults = trigger::check(&request, now);
        self.check_trigger_session(caller, &request.session, shape, faults).await?;
        let id = inner.ids.trigger(&inner.clock);
        let CreateTrigger { name, kind, session, enabled, overlap, jitter_ms } = request;
        let secret = (kind == TriggerKind::Webhook).then(|| SigningSecret::new(inner.ids.bytes()));
        let trigger = Trigger {
            id,
            org_id: caller.org,
            name,
            kind,
            session,
            enabled,
            overlap,
            jitter_ms,
            secret_version: secret.as_ref().map(|_| 1),
            created_by: caller.subject.to_string(),
            created_at: now,
            updated_at: now,
            next_fire_at: None,
        };
        let sealed = secret.as_ref().map(|secret| inner.sealed_trigger_secret(caller.org, id, 1, secret));
        let record = TriggerRecord { next: first_firing(&trigger, now), trigger, sealed, revision: 1 };
        let draft = event(now, caller, AuditType::TriggerCreated, &record.trigger, json!({}));
        let trigger = shown(&record);
        inner.store.tenant(caller.org).change_trigger(TriggerChange::Create { record, draft }).await?;
        inner.scheduled.notify_one();
        Ok(TriggerWithSecret { trigger, secret: secret.map(|secret| secret.expose().to_owned()) })
    }

    /// Triggers, by name.
    pub async fn triggers(&self, caller: &Caller, filter: TriggerFilter) -> Result<TriggerPage, ListError> {
        Ok(self.inner.store.tenant(caller.org).triggers(filter).await?)
    }

    /// The trigger.
    pub async fn trigger(&self, caller: &Caller, id: TriggerId) -> Result<Trigger, ReadError> {
        let found = self.inner.store.tenant(caller.org).trigger(id).await?;
        found.map(|record| record.trigger).ok_or(ReadError::NotFound)
    }

    /// Its last firings, newest first.
    pub async fn trigger_runs(&self, caller: &Caller, id: TriggerId) -> Result<TriggerRuns, ReadError> {
        self.trigger(caller, id).await?;
        Ok(TriggerRuns { items: self.inner.store.tenant(caller.org).trigger_runs(id, RUNS).await? })
    }

    /// Changes a trigger. What waits or runs goes on as it is.
    pub async fn update_trigger(
        &self,
        caller: &Caller,
        id: TriggerId,
        change: UpdateTrigger,
        shape: Vec<FieldError>,
    ) -> Result<Trigger, TriggerError> {
        let inner = &self.inner;
        let tenant = inner.store.tenant(caller.org);
        for _ in 0..ATTEMPTS {
            let now = inner.clock.now();
            let mut record = tenant.trigger(id).await?.ok_or(TriggerError::NotFound)?;
            let before = record.trigger.clone();
            let (mut after, faults) = match trigger::update(&before, change.clone(), now) {
                Ok(after) => (after, Vec::new()),
                Err(faults) => (before.clone(), faults),
            };
            let session = change.session.as_ref().unwrap_or(&after.session);
            self.check_trigger_session(caller, session, shape.clone(), faults).await?;
            let fields = differences(&before, &after);
            if fields.is_empty() {
                return Ok(before);
            }
            after.updated_at = now;
            // A change of what it starts does not move when it does.
            if fields.iter().any(|field| matches!(*field, "kind" | "enabled" | "jitterMs")) {
                record.next = first_firing(&after, now);
            }
            record.trigger = after;
            let trigger = shown(&record);
            let draft = event(now, caller, AuditType::TriggerUpdated, &trigger, json!({ "fields": fields }));
            match tenant.change_trigger(TriggerChange::Update { record, draft }).await {
                Ok(()) => {
                    inner.scheduled.notify_one();
                    return Ok(trigger);
                }
                Err(store::TriggerError::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(TriggerError::Contended)
    }

    /// Makes another secret for calls and gives it out, once. The one before it is of no use any more.
    pub async fn rotate_trigger_secret(
        &self,
        caller: &Caller,
        id: TriggerId,
    ) -> Result<TriggerWithSecret, TriggerError> {
        let inner = &self.inner;
        let tenant = inner.store.tenant(caller.org);
        for _ in 0..ATTEMPTS {
            let now = inner.clock.now();
            let mut record = tenant.trigger(id).await?.ok_or(TriggerError::NotFound)?;
            let Some(version) = record.trigger.secret_version else { return Err(TriggerError::NoSecret) };
            let secret = SigningSecret::new(inner.ids.bytes());
            record.trigger.secret_version = Some(version + 1);
            record.trigger.updated_at = now;
            record.sealed = Some(inner.sealed_trigger_secret(caller.org, id, version + 1, &secret));
            let trigger = shown(&record);
            let draft = event(now, caller, AuditType::TriggerUpdated, &trigger, json!({ "fields": ["secret"] }));
            match tenant.change_trigger(TriggerChange::Update { record, draft }).await {
                Ok(()) => return Ok(TriggerWithSecret { trigger, secret: Some(secret.expose().to_owned()) }),
                Err(store::TriggerError::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(TriggerError::Contended)
    }

    /// Deletes a trigger, and gives what it was. Its sessions go on; what waits is forgotten.
    pub async fn delete_trigger(&self, caller: &Caller, id: TriggerId) -> Result<Trigger, TriggerError> {
        let trigger = self.trigger(caller, id).await?;
        let draft = event(self.inner.clock.now(), caller, AuditType::TriggerDeleted, &trigger, json!({}));
        self.inner.store.tenant(caller.org).change_trigger(TriggerChange::Delete { id, draft }).await?;
        Ok(trigger)
    }

    /// Fires a trigger by hand, enabled or not. Its policy on overlaps holds.
    pub async fn fire_trigger(&self, caller: &Caller, id: TriggerId) -> Result<TriggerRun, FireError> {
        let inner = &self.inner;
        let record = inner.store.tenant(caller.org).trigger(id).await?.ok_or(FireError::Gone)?;
        let key = format!("manual:{}", hex::encode(inner.ids.bytes::<16>()));
        let asked = Asked::new(FiringCause::Manual, key, inner.clock.now());
        self.fire(&record, Asked { actor: Some(caller.subject.to_string()), ..asked }).await
    }

    /// Fires a trigger by a call that is signed. `id` is absent when the path names none. Whatever is wrong with the
    /// signature, and whether there is such a trigger at all, cannot be told from the answer or from its time.
    pub async fn hook(
        &self,
        id: Option<TriggerId>,
        headers: HookHeaders<'_>,
        body: Vec<u8>,
    ) -> Result<TriggerRun, HookError> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let nobody = TriggerId::from_uuid(uuid::Uuid::nil());
        let record = inner.store.system().trigger(id.unwrap_or(nobody)).await?;
        let secret = record.as_ref().and_then(|record| inner.trigger_secret(record).transpose()).transpose();
        if let Err(error) = &secret {
            tracing::error!(%error, "the secret of a trigger does not open");
        }
        let secret = secret.ok().flatten();
        let is_known = secret.is_some();
        let secret = secret.unwrap_or_else(|| SigningSecret::new([0; SECRET_BYTES]));
        let is_signed = secret.verifies(headers.id, headers.timestamp, &body, headers.signature);
        let named =
            (1..=MAX_MESSAGE_ID).contains(&headers.id.len()) && headers.id.bytes().all(|b| b.is_ascii_graphic());
        let record = record.filter(|_| is_known && is_signed && named && is_recent(headers.timestamp, now));
        let record = record.ok_or(HookError::NotSigned)?;
        if !record.trigger.enabled {
            return Err(HookError::Disabled);
        }
        let until = Timestamp::from_millis(now.as_millis() + REMEMBERED_MS);
        let asked = Asked::new(FiringCause::Webhook, format!("hook:{}", headers.id), now);
        let asked = Asked { message: Some((headers.id.to_owned(), until)), body: Some(body), ..asked };
        Ok(self.fire(&record, asked).await?)
    }
}

/// Whether a time in seconds, as a call has it, is about now.
fn is_recent(seconds: &str, now: Timestamp) -> bool {
    let digits = (1..=12).contains(&seconds.len()) && seconds.bytes().all(|byte| byte.is_ascii_digit());
    let apart = seconds.parse::<i64>().map(|seconds| (now.as_millis().div_euclid(1000) - seconds).abs());
    digits && apart.is_ok_and(|apart| apart <= WINDOW)
}

impl Inner {
    fn sealed_trigger_secret(&self, org: OrgId, id: TriggerId, version: u64, secret: &SigningSecret) -> Vec<u8> {
        let value: Secret = secret.clone().into_secret();
        let place = Place { org, of: Owner::Trigger(id), version };
        self.vault.seal(&self.ids, place, &Credential { value, ..Credential::default() })
    }

    /// What calls to a trigger are signed with; none when it takes none.
    fn trigger_secret(&self, record: &TriggerRecord) -> Result<Option<SigningSecret>, UnsealError> {
        let trigger = &record.trigger;
        let Some((sealed, version)) = record.sealed.as_deref().zip(trigger.secret_version) else { return Ok(None) };
        let place = Place { org: trigger.org_id, of: Owner::Trigger(trigger.id), version };
        let credential = self.vault.open(place, sealed)?;
        SigningSecret::try_from(credential.value).map(Some).map_err(|_| UnsealError::Damaged)
    }
}

/// The first firing of a trigger's schedule behind a moment, if it has one and is enabled.
fn first_firing(trigger: &Trigger, after: Timestamp) -> Option<NextFiring> {
    let schedule = trigger::schedule_of(&trigger.kind, after).filter(|_| trigger.enabled)?.ok()?;
    next_firing(trigger, &schedule, after)
}

fn next_firing(trigger: &Trigger, schedule: &Schedule, after: Timestamp) -> Option<NextFiring> {
    let due = schedule.next(after)?;
    let late = schedule::jitter(&trigger.id.to_string(), due, trigger.jitter_ms.unwrap_or(0));
    let at = Timestamp::from_millis(due.as_millis().saturating_add(i64::try_from(late).unwrap_or(0)));
    Some(NextFiring { due, at })
}

fn shown(record: &TriggerRecord) -> Trigger {
    Trigger { next_fire_at: record.next.map(|next| next.at), ..record.trigger.clone() }
}

/// Names of the fields that differ.
fn differences(one: &Trigger, other: &Trigger) -> Vec<&'static str> {
    let differ = [
        ("enabled", one.enabled != other.enabled),
        ("kind", one.kind != other.kind),
        ("session", one.session != other.session),
        ("overlap", one.overlap != other.overlap),
        ("jitterMs", one.jitter_ms != other.jitter_ms),
    ];
    differ.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect()
}

/// An audit event about a trigger, with `more` beside what each of them says.
fn event(ts: Timestamp, caller: &Caller, kind: AuditType, trigger: &Trigger, more: Value) -> Draft {
    let mut data = json!({ "trigger": trigger.id, "name": trigger.name, "kind": trigger.kind.as_str() });
    if let (Some(data), Value::Object(more)) = (data.as_object_mut(), more) {
        data.extend(more);
    }
    Draft { ts, kind, session_id: None, actor: caller.subject.to_string(), source: AuditSource::Platform, data }
}
