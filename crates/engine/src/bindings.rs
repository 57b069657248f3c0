//! Service bindings: made, changed, rotated, deleted, and opened for a session that is about to run.
//!
//! A change is decided on what stands in the store and written only if that still stands; else it is decided anew. Every
//! change carries its audit events, which never hold a secret.

use std::sync::Arc;

use model::{
    access::Caller,
    audit::Draft,
    binding::{self, Upstream},
    gateway::{BoundService, Credential},
    session::MAX_BINDINGS,
};
use serde_json::{Value, json};
use store::{BindingChange, BindingFilter, BindingRecord};
use tokio::sync::broadcast;
use wire::{
    AuditSource, AuditType, Binding, BindingId, BindingPage, BindingSecret, BindingSpec, CreateBinding, FieldError,
    OrgId, Timestamp, UpdateBinding,
};

use crate::{
    BindingError, BoundError, Engine, Inner, ListError, ReadError,
    vault::{Owner, Place},
};

/// Notices that a slow reader may be behind; one that is further behind looks at everything again.
pub(crate) const NOTICES: usize = 256;
/// How often a change is decided anew because another one came between. Each time another one was made.
const ATTEMPTS: u32 = 64;

/// A binding has another secret than before. It was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The org.
    pub org: OrgId,
    /// The binding.
    pub binding: BindingId,
}

impl Engine {
    /// Makes a binding. `shape` is what could not be read of the request.
    pub async fn create_binding(
        &self,
        caller: &Caller,
        request: CreateBinding,
        shape: Vec<FieldError>,
    ) -> Result<Binding, BindingError> {
        let inner = &self.inner;
        let (spec, credential) = binding::create(request, shape).map_err(BindingError::Invalid)?;
        let (now, id) = (inner.clock.now(), inner.ids.binding(&inner.clock));
        let binding = Binding {
            id,
            org_id: caller.org,
            spec,
            secret_version: 1,
            rotated_at: now,
            created_at: now,
            updated_at: now,
        };
        let record =
            BindingRecord { sealed: inner.vault.seal(&inner.ids, place(&binding), &credential), revision: 1, binding };
        let draft = event(now, caller, AuditType::BindingCreated, &record.binding, json!({}));
        let binding = record.binding.clone();
        inner.store.tenant(caller.org).change_binding(BindingChange::Create { record, draft }).await?;
        Ok(binding)
    }

    /// Bindings, by name.
    pub async fn bindings(&self, caller: &Caller, filter: BindingFilter) -> Result<BindingPage, ListError> {
        Ok(self.inner.store.tenant(caller.org).bindings(filter).await?)
    }

    /// The binding.
    pub async fn binding(&self, caller: &Caller, id: BindingId) -> Result<Binding, ReadError> {
        let found = self.inner.store.tenant(caller.org).binding(id).await?;
        found.map(|record| record.binding).ok_or(ReadError::NotFound)
    }

    /// Changes what a binding is. Sessions that run keep what they have; they do not get a secret that comes with a change
    /// that leads elsewhere.
    pub async fn update_binding(
        &self,
        caller: &Caller,
        id: BindingId,
        change: UpdateBinding,
        shape: Vec<FieldError>,
    ) -> Result<Binding, BindingError> {
        self.change(caller, id, move |now| {
            let (spec, credential) = binding::update(now, change.clone(), shape.clone())?;
            Ok(Decided { spec, credential })
        })
        .await
    }

    /// Replaces a binding's secret. It reaches the sessions that run.
    pub async fn rotate_binding(
        &self,
        caller: &Caller,
        id: BindingId,
        secret: BindingSecret,
        shape: Vec<FieldError>,
    ) -> Result<Binding, BindingError> {
        self.change(caller, id, move |now| {
            let credential = binding::rotate(&now.kind, secret.clone(), shape.clone())?;
            Ok(Decided { spec: now.clone(), credential: Some(credential) })
        })
        .await
    }

    /// Deletes a binding and its secret, and gives what it was. Sessions that run keep what they have until they end.
    pub async fn delete_binding(&self, caller: &Caller, id: BindingId) -> Result<Binding, BindingError> {
        let binding = self.binding(caller, id).await?;
        let draft = event(self.inner.clock.now(), caller, AuditType::BindingDeleted, &binding, json!({}));
        self.inner.store.tenant(caller.org).change_binding(BindingChange::Delete { id, draft }).await?;
        Ok(binding)
    }

    /// The bindings that a session of `org` asks for by id or name, opened.
    pub async fn bound(&self, org: OrgId, asked: &[String]) -> Result<Vec<BoundService>, BoundError> {
        self.inner.bound(org, asked).await
    }

    /// The secret that a binding has now, for a session that holds an earlier one of it; none when the binding is gone or
    /// leads elsewhere than the session's does.
    pub async fn bound_now(&self, org: OrgId, held: &BoundService) -> Result<Option<Credential>, BoundError> {
        self.inner.bound_now(org, held).await
    }

    /// Tells of each secret that is replaced from now on. Whoever is told that notices were missed looks at everything
    /// that it holds with [`Engine::bound_now`].
    pub fn rotations(&self) -> broadcast::Receiver<Rotated> {
        self.inner.rotations.subscribe()
    }

    /// In a task of its own: a caller that goes away in the middle must not leave running sessions without the notice.
    async fn change(
        &self,
        caller: &Caller,
        id: BindingId,
        decide: impl Fn(&BindingSpec) -> Result<Decided, Vec<FieldError>> + Send + Sync + 'static,
    ) -> Result<Binding, BindingError> {
        let (inner, caller) = (Arc::clone(&self.inner), caller.clone());
        let changed = tokio::spawn(async move { inner.change(&caller, id, decide).await });
        changed.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }
}

/// What a binding is to be.
struct Decided {
    spec: BindingSpec,
    /// Its new secret, if it gets one.
    credential: Option<Credential>,
}

impl Inner {
    async fn change(
        &self,
        caller: &Caller,
        id: BindingId,
        decide: impl Fn(&BindingSpec) -> Result<Decided, Vec<FieldError>> + Send + Sync,
    ) -> Result<Binding, BindingError> {
        let tenant = self.store.tenant(caller.org);
        for _ in 0..ATTEMPTS {
            let record = tenant.binding(id).await?.ok_or(BindingError::NotFound)?;
            let decided = decide(&record.binding.spec).map_err(BindingError::Invalid)?;
            let rotates = decided.credential.is_some();
            let Some((record, drafts)) = self.changed(caller, record.clone(), decided) else {
                return Ok(record.binding);
            };
            let binding = record.binding.clone();
            match tenant.change_binding(BindingChange::Update { record, drafts }).await {
                Ok(()) => {
                    if rotates {
                        // Nobody listens when no session has a binding.
                        let _ = self.rotations.send(Rotated { org: caller.org, binding: id });
                    }
                    return Ok(binding);
                }
                Err(store::BindingError::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(BindingError::Contended)
    }

    /// The record with what was decided, and the events of the change; none when nothing changes.
    fn changed(
        &self,
        caller: &Caller,
        mut record: BindingRecord,
        decided: Decided,
    ) -> Option<(BindingRecord, Vec<Draft>)> {
        let now = self.clock.now();
        let fields = differences(&record.binding.spec, &decided.spec);
        let mut drafts = Vec::new();
        if !fields.is_empty() {
            record.binding.spec = decided.spec;
            record.binding.updated_at = now;
            drafts.push(event(now, caller, AuditType::BindingUpdated, &record.binding, json!({ "fields": fields })));
        }
        if let Some(credential) = decided.credential {
            record.binding.secret_version += 1;
            record.binding.rotated_at = now;
            record.sealed = self.vault.seal(&self.ids, place(&record.binding), &credential);
            let more = json!({ "secretVersion": record.binding.secret_version });
            drafts.push(event(now, caller, AuditType::BindingRotated, &record.binding, more));
        }
        (!drafts.is_empty()).then_some((record, drafts))
    }

    pub(crate) async fn bound(&self, org: OrgId, asked: &[String]) -> Result<Vec<BoundService>, BoundError> {
        if asked.len() > MAX_BINDINGS {
            let message = format!("must have at most {MAX_BINDINGS} entries");
            return Err(BoundError::Invalid(vec![FieldError::new("serviceBindings", message)]));
        }
        let tenant = self.store.tenant(org);
        let (mut faults, mut found) = (Vec::new(), Vec::<BindingRecord>::new());
        for (index, asked) in asked.iter().enumerate() {
            let field = format!("serviceBindings[{index}]");
            let record = match asked.parse() {
                Ok(id) => tenant.binding(id).await?,
                Err(_) => tenant.binding_named(asked).await?,
            };
            match record {
                None => faults.push(FieldError::new(field, "is not a binding of this org")),
                Some(record) if found.iter().any(|other| other.binding.id == record.binding.id) => {
                    faults.push(FieldError::new(field, "is a binding that is there already"));
                }
                Some(record) => found.push(record),
            }
        }
        if !faults.is_empty() {
            return Err(BoundError::Invalid(faults));
        }
        found.into_iter().map(|record| self.opened(record)).collect()
    }

    pub(crate) async fn bound_now(&self, org: OrgId, held: &BoundService) -> Result<Option<Credential>, BoundError> {
        let record = self.store.tenant(org).binding(held.id).await?;
        let same = record.filter(|record| binding::same_destination(&held.spec, &record.binding.spec));
        same.map(|record| self.opened(record).map(|bound| bound.credential)).transpose()
    }

    fn opened(&self, record: BindingRecord) -> Result<BoundService, BoundError> {
        let BindingRecord { binding, sealed, .. } = record;
        match self.vault.open(place(&binding), &sealed) {
            Ok(credential) => Ok(BoundService { id: binding.id, spec: binding.spec, credential }),
            Err(source) => Err(BoundError::Sealed { binding: binding.id, source }),
        }
    }

    /// Says, once at the start, which secrets this server's key does not open. It starts all the same: what has nothing to
    /// do with them works, and a secret that is given again is sealed under the key that is here.
    pub(crate) async fn look_at_secrets(&self) -> Result<(), store::StoreError> {
        for (of, sealed) in self.store.system().sealed().await? {
            if let Err(error) = self.vault.holds(&sealed) {
                tracing::error!(%of, %error, "this server's key does not open the secret; set it again, or the key");
            }
        }
        Ok(())
    }
}

fn place(binding: &Binding) -> Place {
    Place { org: binding.org_id, of: Owner::Binding(binding.id), version: binding.secret_version }
}

/// Names of the fields that differ.
fn differences(one: &BindingSpec, other: &BindingSpec) -> Vec<&'static str> {
    let differ = [
        ("kind", one.kind != other.kind),
        ("upstream", one.upstream != other.upstream),
        ("allow", one.allow != other.allow),
        ("budget", one.budget != other.budget),
    ];
    differ.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect()
}

/// An audit event about a binding, with `more` beside what each of them says.
fn event(ts: Timestamp, caller: &Caller, kind: AuditType, binding: &Binding, more: Value) -> Draft {
    let upstream = binding.spec.upstream.url.parse::<Upstream>();
    let mut data = json!({
        "binding": binding.id,
        "name": binding.spec.name,
        "kind": binding.spec.kind.as_str(),
        "upstream": upstream.map_or_else(|_| String::new(), |upstream| format!("{}:{}", upstream.host, upstream.port)),
    });
    if let (Some(data), Value::Object(more)) = (data.as_object_mut(), more) {
        data.extend(more);
    }
    Draft { ts, kind, session_id: None, actor: caller.subject.to_string(), source: AuditSource::Platform, data }
}
