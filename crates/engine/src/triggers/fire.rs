//! One firing: it starts a session, waits, or is told why not. Whoever else takes it up at the same time starts nothing:
//! the firing is recorded in the transaction that records its session.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use model::{
    access::{Caller, Subject},
    audit::Draft,
    trigger::{BODY_FILE, MAX_WAITING},
};
use serde_json::json;
use store::{Alone, Firing, NextFiring, NotFired, TriggerRecord, Unstarted, Waited};
use wire::{
    AuditSource, AuditType, FieldError, File, FiringCause, FiringOutcome, Overlap, Role, Timestamp, TriggerRun,
};

use crate::{CreateError, CreateRequest, Engine, FireError};

/// Faults that are told of a session that is refused.
const MAX_FAULTS: usize = 5;

/// A firing that is to be taken up.
pub(super) struct Asked {
    pub(super) cause: FiringCause,
    pub(super) key: String,
    /// The moment that it was due at.
    pub(super) due: Timestamp,
    /// When its schedule comes next.
    pub(super) next: Option<NextFiring>,
    /// The message that called, and until when it is remembered.
    pub(super) message: Option<(String, Timestamp)>,
    /// What the caller sent.
    pub(super) body: Option<Vec<u8>>,
    pub(super) waited: Waited,
    /// Who caused it, if not the trigger itself.
    pub(super) actor: Option<String>,
}

impl Asked {
    pub(super) fn new(cause: FiringCause, key: String, due: Timestamp) -> Self {
        Self { cause, key, due, next: None, message: None, body: None, waited: Waited::No, actor: None }
    }
}

impl Engine {
    pub(super) async fn fire(&self, record: &TriggerRecord, asked: Asked) -> Result<TriggerRun, FireError> {
        let (inner, trigger) = (&self.inner, &record.trigger);
        let now = inner.clock.now();
        let caller = Caller {
            org: trigger.org_id,
            subject: Subject::Trigger(trigger.id),
            role: Role::Developer,
            narrowed: None,
        };
        let mut request = trigger.session.clone();
        if let Some(body) = &asked.body {
            let content_base64 = Some(STANDARD.encode(body));
            request.files.push(File { path: BODY_FILE.to_owned(), content_base64, ..File::default() });
        }
        let firing = Firing {
            trigger: trigger.id,
            key: asked.key,
            cause: asked.cause,
            due: asked.due,
            now,
            alone: match trigger.overlap {
                Overlap::Skip | Overlap::Queue => Alone::Needed,
                Overlap::Allow => Alone::NotNeeded,
            },
            waited: asked.waited,
            next: asked.next,
            message: asked.message,
        };
        let draft = Draft {
            ts: now,
            kind: AuditType::TriggerFired,
            session_id: None,
            actor: asked.actor.unwrap_or_else(|| caller.subject.to_string()),
            source: AuditSource::Platform,
            data: json!({
                "trigger": trigger.id, "name": trigger.name, "cause": firing.cause.as_str(), "dueAt": firing.due,
                "outcome": FiringOutcome::Started.as_str(),
            }),
        };
        let create = CreateRequest { request, shape_faults: Vec::new(), idempotency: None, uploads: None };
        let refused = match self.create_fired(&caller, create, Some((firing.clone(), draft.clone()))).await {
            Ok(session) => {
                return Ok(TriggerRun {
                    cause: firing.cause,
                    due_at: firing.due,
                    fired_at: now,
                    outcome: FiringOutcome::Started,
                    session_id: Some(session.id),
                    detail: None,
                });
            }
            Err(refused) => refused,
        };
        let (outcome, detail) = match refused {
            CreateError::NotFired(NotFired::Overlaps) => match (trigger.overlap, firing.waited) {
                // Another one was faster; its turn comes.
                (_, Waited::Yes) => return Err(FireError::Overtaken),
                (Overlap::Queue, Waited::No) => (FiringOutcome::Queued, None),
                (Overlap::Skip | Overlap::Allow, Waited::No) => {
                    (FiringOutcome::Skipped, Some("a session of the trigger's has not ended".to_owned()))
                }
            },
            CreateError::NotFired(NotFired::Taken) => return Err(FireError::Taken),
            CreateError::NotFired(NotFired::Gone) => return Err(FireError::Gone),
            CreateError::Invalid(faults)
            | CreateError::NotSupported(faults)
            | CreateError::NotEnforceable { faults, .. } => (FiringOutcome::Refused, Some(told(&faults))),
            other @ (CreateError::Busy { .. }
            | CreateError::Sealed { .. }
            | CreateError::Draining
            | CreateError::IdempotencyConflict
            | CreateError::NotFired(NotFired::Store(_))
            | CreateError::Store(_)) => return Err(FireError::Later(other)),
        };
        let body = asked.body;
        let unstarted = Unstarted { firing, outcome, detail, body, most_waiting: MAX_WAITING, draft };
        match inner.store.tenant(trigger.org_id).record_firing(unstarted).await {
            Ok(run) => {
                // Perhaps what it waits for has ended meanwhile.
                inner.scheduled.notify_one();
                Ok(run)
            }
            Err(NotFired::Taken | NotFired::Overlaps) => Err(FireError::Taken),
            Err(NotFired::Gone) => Err(FireError::Gone),
            Err(NotFired::Store(error)) => Err(FireError::Store(error)),
        }
    }
}

/// Why a session is refused, in one line.
fn told(faults: &[FieldError]) -> String {
    let lines: Vec<_> =
        faults.iter().take(MAX_FAULTS).map(|fault| format!("session.{} {}", fault.field, fault.message)).collect();
    lines.join("; ")
}
