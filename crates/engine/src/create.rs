//! Creating a session: decide, admit, record, start its driver.

use std::sync::Arc;

use backend::SessionBackend;
use model::{
    access::Caller,
    audit::Draft,
    session::{SessionSpec, Uploaded},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use store::{Created, Firing, Idempotency, NewSession};
use wire::{AuditSource, AuditType, CreateSession, FieldError, Session};

use crate::{CreateError, Engine, Uploads, bound::Unbound, driver, view};

/// A request for a session as it came in.
#[derive(Debug)]
pub struct CreateRequest {
    /// What could be read of it.
    pub request: CreateSession,
    /// What could not.
    pub shape_faults: Vec<FieldError>,
    /// The `Idempotency-Key` and the request's bytes, if it has one.
    pub idempotency: Option<(String, Vec<u8>)>,
    /// Files that came beside it.
    pub uploads: Option<Uploads>,
}

/// A session that may be admitted.
pub(crate) struct Prepared {
    pub(crate) backend: Arc<dyn SessionBackend>,
    pub(crate) spec: SessionSpec,
    /// Its bindings, as the caller wrote them.
    named: Vec<String>,
}

impl Prepared {
    /// Where its end is told of.
    pub(crate) fn webhook_url(&self) -> Option<String> {
        self.spec.webhook_url.as_ref().map(|url| url.as_str().to_owned())
    }
}

impl Engine {
    /// Creates a session and starts it.
    pub async fn create(&self, caller: &Caller, asked: CreateRequest) -> Result<Session, CreateError> {
        self.create_fired(caller, asked, None).await
    }

    /// The same by a firing of a trigger, with the audit event of that.
    pub(crate) async fn create_fired(
        &self,
        caller: &Caller,
        asked: CreateRequest,
        fired: Option<(Firing, Draft)>,
    ) -> Result<Session, CreateError> {
        let inner = &self.inner;
        // Taken before the look: a shutdown that begins after it waits until the driver has been started.
        let creating = inner.drivers.token();
        if inner.draining.is_cancelled() {
            return Err(CreateError::Draining);
        }
        let uploaded = asked.uploads.as_ref().map(Uploads::uploaded).unwrap_or_default();
        let prepared = self.prepare(caller, asked.request, &uploaded, asked.shape_faults).await?;
        let idempotency = asked
            .idempotency
            .map(|(key, bytes)| Idempotency { key, request_digest: hex::encode(Sha256::digest(&bytes)) });
        let place = match inner.slots.reserve(caller.org) {
            Ok(place) => place,
            // A repeat takes no place: its session has one, or has ended.
            Err(busy) => return self.repeated(caller, idempotency).await?.ok_or(busy),
        };

        let uploads = asked.uploads.and_then(Uploads::complete);
        let (session, draft) = self.pending(caller, &prepared, &json!({}));
        let webhook_url = prepared.webhook_url();
        let Prepared { backend, spec, .. } = prepared;
        let (firing, fired) = fired.unzip();
        let fired = fired.map(|draft| Draft { session_id: Some(session.id), ..draft });
        let drafts = [Some(draft), fired].into_iter().flatten().collect();
        let new = NewSession { session: session.clone(), idempotency, drafts, webhook_url, firing };

        // In a task of its own: a caller that goes away in the middle must not leave a session without its driver.
        let inner = Arc::clone(inner);
        let recorded = tokio::spawn(async move {
            // Entered before: whoever finds it in the store finds it here too, to watch it and to end it.
            let live = inner.registry.enter(&session);
            let created = inner.store.tenant(session.org_id).create_session(new).await;
            if !matches!(created, Ok(Created::New(_))) {
                inner.registry.forget(session.id);
            }
            let events = match created? {
                Created::New(events) => events,
                Created::Existing(existing) => return Ok(*existing),
            };
            metrics::counter!("enclave_sessions_created_total", "backend" => session.backend.clone()).increment(1);
            let run = driver::Given { backend, spec, uploads, place };
            driver::start(&inner, live, session.clone(), run, events);
            drop(creating);
            Ok(session)
        });
        recorded.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }

    /// Decides on a request. One for what the backend does not enforce is noted in the audit log.
    pub(crate) async fn prepare(
        &self,
        caller: &Caller,
        request: CreateSession,
        uploaded: &[Uploaded],
        shape_faults: Vec<FieldError>,
    ) -> Result<Prepared, CreateError> {
        let judged = self.judge(caller, request, uploaded, shape_faults).await;
        if let Err(CreateError::NotEnforceable { backend, faults }) = &judged {
            self.note_refused(caller, backend, faults).await?;
        }
        judged
    }

    /// The content, what the backend enforces, and what only this deployment can tell. Records nothing.
    pub(crate) async fn judge(
        &self,
        caller: &Caller,
        request: CreateSession,
        uploaded: &[Uploaded],
        shape_faults: Vec<FieldError>,
    ) -> Result<Prepared, CreateError> {
        let known = self.backend_names();
        let config = &self.inner.config;
        let decided = SessionSpec::decide(request, uploaded, shape_faults, &config.maxima, &config.interactive, &known);
        let mut spec = decided.map_err(CreateError::from)?;
        if let Some(fault) = self.artifacts_fault(&spec) {
            return Err(CreateError::NotSupported(vec![fault]));
        }
        let backend = self.backend_for(&spec);
        let capabilities = backend.capabilities();
        let faults = capabilities.unenforceable(&spec);
        if !faults.is_empty() {
            return Err(CreateError::NotEnforceable { backend: capabilities.name, faults });
        }
        let named = self.name_bindings(caller, &mut spec).await?;
        let source = self.source_fault(caller, &spec).await?;
        let faults: Vec<_> = source.into_iter().chain(self.webhook_fault(&spec)).collect();
        if !faults.is_empty() {
            return Err(CreateError::Invalid(faults));
        }
        Ok(Prepared { backend, spec, named })
    }

    /// The session as it is first recorded, with the audit event of its creation, which says `also` as well.
    pub(crate) fn pending(&self, caller: &Caller, prepared: &Prepared, also: &Value) -> (Session, Draft) {
        let inner = &self.inner;
        let Prepared { backend, spec, named } = prepared;
        let (now, capabilities) = (inner.clock.now(), backend.capabilities());
        let mut session = view::pending(inner.ids.session(&inner.clock), caller, spec, capabilities, now);
        session.service_bindings.clone_from(named);
        let mut data = created(capabilities.name, spec);
        for (name, value) in also.as_object().into_iter().flatten() {
            data[name] = value.clone();
        }
        let draft = Draft::platform(now, AuditType::SessionCreated, session.id, data).by(caller.subject.to_string());
        (session, draft)
    }

    /// Ties a session to the bindings that its names mean now, and gives what the caller wrote.
    pub(crate) async fn name_bindings(
        &self,
        caller: &Caller,
        spec: &mut SessionSpec,
    ) -> Result<Vec<String>, CreateError> {
        let bound = self.inner.bound(caller.org, &spec.service_bindings).await?;
        let ids = bound.iter().map(|service| service.id.to_string()).collect();
        Ok(std::mem::replace(&mut spec.service_bindings, ids))
    }

    /// What is wrong with a repository that only this deployment can tell.
    pub(crate) async fn source_fault(
        &self,
        caller: &Caller,
        spec: &SessionSpec,
    ) -> Result<Option<FieldError>, CreateError> {
        let Some(repository) = &spec.source else { return Ok(None) };
        Ok(match self.inner.bound_repository(caller.org, repository).await {
            Err(Unbound::Failed(error)) => return Err(error.into()),
            Err(error) => Some(FieldError::new("source.credential", error.to_string())),
            // Where a binding leads is the binding's matter.
            Ok(Some(_)) => None,
            Ok(None) => {
                let reachable = driver::clone::reachable(&repository.url, self.inner.config.deployment.clone());
                reachable.err().map(|refused| FieldError::new("source.repo", refused.detail))
            }
        })
    }

    /// What this deployment does not keep.
    pub(crate) fn artifacts_fault(&self, spec: &SessionSpec) -> Option<FieldError> {
        let kept = spec.artifacts.is_empty() || self.inner.config.artifacts.is_some();
        (!kept).then(|| FieldError::new("artifacts", "are not kept by this deployment"))
    }

    /// What is wrong with where to tell of its end that only this deployment can tell.
    pub(crate) fn webhook_fault(&self, spec: &SessionSpec) -> Option<FieldError> {
        let refused = self.inner.config.receivers.literal(spec.webhook_url.as_ref()?).err()?;
        Some(FieldError::new("webhookUrl", refused.detail))
    }

    /// The session that an earlier request with the same key made.
    async fn repeated(
        &self,
        caller: &Caller,
        idempotency: Option<Idempotency>,
    ) -> Result<Option<Session>, CreateError> {
        let Some(idempotency) = idempotency else { return Ok(None) };
        Ok(self.inner.store.tenant(caller.org).repeated(&idempotency).await?)
    }

    /// The backend that was asked for; the default one if none was.
    pub(crate) fn backend_for(&self, spec: &SessionSpec) -> Arc<dyn SessionBackend> {
        let asked = |backend: &&Arc<dyn SessionBackend>| {
            spec.backend.as_ref().is_none_or(|name| backend.capabilities().name == name)
        };
        Arc::clone(self.inner.backends.iter().find(asked).expect("an unknown backend was refused"))
    }

    /// The names that a request may ask for.
    pub(crate) fn backend_names(&self) -> Vec<&'static str> {
        self.inner.backends.iter().map(|backend| backend.capabilities().name).collect()
    }

    pub(crate) async fn note_refused(
        &self,
        caller: &Caller,
        backend: &str,
        faults: &[FieldError],
    ) -> Result<(), CreateError> {
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        let draft = Draft {
            ts: self.inner.clock.now(),
            kind: AuditType::SessionRefused,
            session_id: None,
            actor: caller.subject.to_string(),
            source: AuditSource::Platform,
            data: json!({ "backend": backend, "fields": fields }),
        };
        self.inner.store.tenant(caller.org).append_audit(vec![draft]).await?;
        Ok(())
    }
}

/// What is written down of a request.
fn created(backend: &str, spec: &SessionSpec) -> Value {
    let mut data = json!({ "backend": backend, "egress": spec.egress.mode, "language": spec.language });
    match &spec.source {
        None => data["codeSha256"] = hex::encode(Sha256::digest(spec.code.as_bytes())).into(),
        Some(repository) => {
            data["source"] = json!({
                "repo": repository.url.to_string(),
                "ref": repository.reference,
                "entrypoint": repository.entrypoint,
            });
        }
    }
    data
}
