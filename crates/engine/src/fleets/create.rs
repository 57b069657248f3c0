//! Creating a fleet: decide on every member, record, start its task.

use std::{collections::HashSet, sync::Arc};

use model::{
    access::Caller,
    audit::Draft,
    fleet::{FleetSpec, count},
};
use serde_json::{Value, json};
use store::{CreatedFleet, Idempotency, NewFleet};
use wire::{
    AuditSource, AuditType, CreateFleet, FieldError, Fleet, FleetMembers, FleetPhase, FleetUsage, MemberPhase,
    Timestamp,
};

use super::{hub::FleetHub, run};
use crate::{CreateError, Engine};

/// Different bindings and repositories that one fleet may name: each is looked up before the fleet is admitted.
const MAX_LOOKUPS: usize = 256;

/// A request for a fleet as it came in.
#[derive(Debug)]
pub struct CreateFleetRequest {
    /// What could be read of it.
    pub request: CreateFleet,
    /// What could not.
    pub shape_faults: Vec<FieldError>,
    /// The `Idempotency-Key` and the SHA-256 of the request's bytes, hex, if it has one.
    pub idempotency: Option<(String, String)>,
}

impl Engine {
    /// Creates a fleet, with all of its members or not at all, and starts it.
    pub async fn create_fleet(&self, caller: &Caller, asked: CreateFleetRequest) -> Result<Fleet, CreateError> {
        let inner = &self.inner;
        // Taken before the look: a shutdown that begins after it waits until the task has been started.
        let creating = inner.drivers.token();
        if inner.draining.is_cancelled() {
            return Err(CreateError::Draining);
        }
        let spec = self.decide_fleet(asked.request, asked.shape_faults).await?;
        self.admit_members(caller, &spec).await?;
        let idempotency = asked.idempotency.map(|(key, request_digest)| Idempotency { key, request_digest });
        let now = inner.clock.now();
        let total = spec.total();
        let fleet = Fleet {
            id: inner.ids.fleet(&inner.clock),
            org_id: caller.org,
            created_by: caller.subject.to_string(),
            name: spec.name,
            phase: FleetPhase::Pending,
            reason: None,
            completion: spec.completion,
            max_concurrency: spec.max_concurrency,
            budget: spec.budget,
            used: FleetUsage::default(),
            counts: count(std::iter::repeat_n(MemberPhase::Queued, total)),
            labels: spec.labels,
            created_at: now,
            started_at: None,
            finished_at: None,
        };
        let (template, tasks) = texts(&spec.members);
        let drafts = vec![created(&fleet, template.is_some(), &caller.subject.to_string(), now)];
        let new = NewFleet { fleet: fleet.clone(), template, tasks, idempotency: idempotency.clone(), drafts };
        let hub = Arc::new(FleetHub::new(fleet.clone(), now));
        // Entered before: whoever finds it in the store finds it here too.
        if let Err(busy) = inner.fleets.enter(Arc::clone(&hub)) {
            // A repeat takes no place: its fleet has one, or has ended.
            let Some(idempotency) = idempotency else { return Err(busy) };
            return inner.store.tenant(caller.org).repeated_fleet(&idempotency).await?.ok_or(busy);
        }
        // In a task of its own: a caller that goes away in the middle must not leave a fleet without its task.
        let (engine, caller) = (self.clone(), caller.clone());
        let recorded = tokio::spawn(async move {
            let made = engine.inner.store.tenant(caller.org).create_fleet(new).await;
            if !matches!(made, Ok(CreatedFleet::New)) {
                engine.inner.fleets.leave(fleet.id);
                hub.close();
            }
            if let CreatedFleet::Existing(existing) = made? {
                return Ok(engine.fleet(&caller, existing.id).await.unwrap_or(*existing));
            }
            let members = vec![MemberPhase::Queued; total];
            run::start(&engine, caller, hub, run::Standing::new(fleet.clone(), members));
            drop(creating);
            Ok(fleet)
        });
        recorded.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }

    /// The content, on a thread of its own: ten thousand members take a while to judge.
    async fn decide_fleet(
        &self,
        request: CreateFleet,
        shape_faults: Vec<FieldError>,
    ) -> Result<FleetSpec, CreateError> {
        let (maxima, known) = (self.inner.config.maxima, self.backend_names());
        let judged =
            tokio::task::spawn_blocking(move || FleetSpec::decide(request, shape_faults, &maxima, &known)).await;
        Ok(judged.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))?)
    }

    /// What the backend enforces, and what only this deployment can tell: for each different member once.
    async fn admit_members(&self, caller: &Caller, spec: &FleetSpec) -> Result<(), CreateError> {
        let mut faults = Vec::new();
        let mut bound = HashSet::new();
        let mut sources = Vec::new();
        for (path, member) in &spec.specs {
            if let Some(fault) = self.artifacts_fault(member) {
                return Err(CreateError::NotSupported(vec![fault.under(path)]));
            }
            let backend = self.backend_for(member);
            let capabilities = backend.capabilities();
            let own = capabilities.unenforceable(member);
            if !own.is_empty() {
                let own: Vec<_> = own.into_iter().map(|fault| fault.under(path)).collect();
                self.note_refused(caller, capabilities.name, &own).await?;
                return Err(CreateError::NotEnforceable { backend: capabilities.name, faults: own });
            }
            if !member.service_bindings.is_empty() && bound.insert(member.service_bindings.clone()) {
                match self.name_bindings(caller, &mut member.clone()).await {
                    Ok(_) => {}
                    Err(CreateError::Invalid(own)) => faults.extend(own.into_iter().map(|fault| fault.under(path))),
                    Err(other) => return Err(other),
                }
            }
            faults.extend(self.webhook_fault(member).map(|fault| fault.under(path)));
            if let Some(source) = &member.source
                && !sources.contains(source)
            {
                faults.extend(self.source_fault(caller, member).await?.map(|fault| fault.under(path)));
                sources.push(source.clone());
            }
            if bound.len() + sources.len() > MAX_LOOKUPS {
                let message = format!("may name at most {MAX_LOOKUPS} different sets of bindings and repositories");
                faults.push(FieldError::new("members", message));
                break;
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(CreateError::Invalid(faults)) }
    }
}

/// The template, if there is one, and what each member is beside it.
fn texts(members: &FleetMembers) -> (Option<String>, Vec<String>) {
    let text = |session| serde_json::to_string(session).expect("requests have string keys only");
    match members {
        FleetMembers::Listed(members) => (None, members.iter().map(text).collect()),
        FleetMembers::Template(template) => {
            let inputs = template.inputs.iter().map(|input| input.as_str().to_owned());
            (Some(text(&template.template)), inputs.collect())
        }
    }
}

/// What is written down of a request.
fn created(fleet: &Fleet, has_template: bool, by: &str, now: Timestamp) -> Draft {
    let data = json!({
        "fleet": fleet.id, "name": fleet.name, "members": fleet.counts.total, "template": has_template,
        "completion": fleet.completion, "maxConcurrency": fleet.max_concurrency, "budget": fleet.budget,
    });
    draft(AuditType::FleetCreated, by, data, now)
}

pub(super) fn draft(kind: AuditType, by: &str, data: Value, now: Timestamp) -> Draft {
    Draft { ts: now, kind, session_id: None, actor: by.to_owned(), source: AuditSource::Platform, data }
}
