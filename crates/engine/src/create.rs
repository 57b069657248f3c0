//! Creating a session: decide, admit, record, start its driver.

use std::sync::Arc;

use backend::SessionBackend;
use model::{
    access::Caller,
    audit::Draft,
    session::{Refusal, SessionSpec},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use store::{Created, Idempotency, NewSession};
use wire::{AuditSource, AuditType, CreateSession, FieldError, Session};

use crate::{CreateError, Engine, bound::Unbound, driver, view};

/// A request for a session as it came in.
#[derive(Debug)]
pub struct CreateRequest {
    /// What could be read of it.
    pub request: CreateSession,
    /// What could not.
    pub shape_faults: Vec<FieldError>,
    /// The `Idempotency-Key` and the request's bytes, if it has one.
    pub idempotency: Option<(String, Vec<u8>)>,
}

impl Engine {
    /// Creates a session and starts it.
    pub async fn create(&self, caller: &Caller, asked: CreateRequest) -> Result<Session, CreateError> {
        let inner = &self.inner;
        // Taken before the look: a shutdown that begins after it waits until the driver has been started.
        let creating = inner.drivers.token();
        if inner.draining.is_cancelled() {
            return Err(CreateError::Draining);
        }
        let known: Vec<_> = inner.backends.iter().map(|backend| backend.capabilities().name).collect();
        let decided = SessionSpec::decide(asked.request, asked.shape_faults, &inner.config.maxima, &known);
        let mut spec = decided.map_err(|refusal| match refusal {
            Refusal::Invalid(faults) => CreateError::Invalid(faults),
            Refusal::NotSupported(faults) => CreateError::NotSupported(faults),
        })?;
        if !spec.artifacts.is_empty() && inner.config.artifacts.is_none() {
            let fault = FieldError::new("artifacts", "are not kept by this deployment");
            return Err(CreateError::NotSupported(vec![fault]));
        }
        let backend = self.backend_for(&spec);
        let capabilities = backend.capabilities();
        let unenforceable = capabilities.unenforceable(&spec);
        if !unenforceable.is_empty() {
            self.note_refused(caller, capabilities.name, &unenforceable).await?;
            return Err(CreateError::NotEnforceable { backend: capabilities.name, faults: unenforceable });
        }
        let named = self.name_bindings(caller, &mut spec).await?;
        if let Some(fault) = self.source_fault(caller, &spec).await? {
            return Err(CreateError::Invalid(vec![fault]));
        }
        let idempotency = asked
            .idempotency
            .map(|(key, bytes)| Idempotency { key, request_digest: hex::encode(Sha256::digest(&bytes)) });
        let place = match inner.slots.reserve() {
            Ok(place) => place,
            // A repeat takes no place: its session has one, or has ended.
            Err(busy) => return self.repeated(caller, idempotency).await?.ok_or(busy),
        };

        let now = inner.clock.now();
        let mut session = view::pending(inner.ids.session(&inner.clock), caller, &spec, capabilities, now);
        session.service_bindings = named;
        let created = Draft::platform(now, AuditType::SessionCreated, session.id, created(capabilities.name, &spec))
            .by(caller.subject.to_string());
        let new = NewSession { session: session.clone(), idempotency, drafts: vec![created] };

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
            driver::start(&inner, backend, live, session.clone(), spec, place, events);
            drop(creating);
            Ok(session)
        });
        recorded.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }

    /// Ties a session to the bindings that its names mean now, and gives what the caller wrote.
    async fn name_bindings(&self, caller: &Caller, spec: &mut SessionSpec) -> Result<Vec<String>, CreateError> {
        let bound = self.inner.bound(caller.org, &spec.service_bindings).await?;
        let ids = bound.iter().map(|service| service.id.to_string()).collect();
        Ok(std::mem::replace(&mut spec.service_bindings, ids))
    }

    /// What is wrong with a repository that only this deployment can tell.
    async fn source_fault(&self, caller: &Caller, spec: &SessionSpec) -> Result<Option<FieldError>, CreateError> {
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
    fn backend_for(&self, spec: &SessionSpec) -> Arc<dyn SessionBackend> {
        let asked = |backend: &&Arc<dyn SessionBackend>| {
            spec.backend.as_ref().is_none_or(|name| backend.capabilities().name == name)
        };
        Arc::clone(self.inner.backends.iter().find(asked).expect("an unknown backend was refused"))
    }

    async fn note_refused(&self, caller: &Caller, backend: &str, faults: &[FieldError]) -> Result<(), CreateError> {
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
