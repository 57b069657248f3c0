//! A store whose writes fail, hang or wait as ordered.

use std::{
    future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use model::audit::{Draft, Head};
use store::{
    AuditFilter, BindingChange, BindingError, BindingFilter, BindingRecord, CreateError, Created, CreatedFleet,
    FleetChange, FleetFilter, Idempotency, KeyRecord, MemberError, MemberFilter, NewFleet, NewSession, Seat,
    SessionFilter, Store, StoreError, System, Task, Tenant, Update, UpdateError,
};
use tokio::sync::Notify;
use wire::{
    AuditEvent, AuditType, BindingId, BindingPage, Fleet, FleetId, FleetMemberPage, FleetPage, FleetResultPage, KeyId,
    OrgId, Session, SessionId, SessionPage, SessionResult,
};

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Fails,
    Hangs,
    /// The row is another server's, from then on.
    NotLive,
}

/// Where a creation is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    BeforeCommit,
    AfterCommit,
}

#[derive(Debug, Default)]
pub(crate) struct Orders {
    updates: Mutex<Option<(AuditType, Fate)>>,
    not_live: AtomicBool,
    refused: Notify,
    creations: Mutex<Option<Hold>>,
    held: Notify,
    let_go: Notify,
}

impl Orders {
    /// What becomes of updates with such an event, from now on.
    pub(crate) fn refuse(&self, kind: AuditType, fate: Fate) {
        *self.updates.lock().unwrap() = Some((kind, fate));
    }

    pub(crate) fn allow(&self) {
        *self.updates.lock().unwrap() = None;
    }

    /// Resolves when an update was refused.
    pub(crate) async fn refused(&self) {
        self.refused.notified().await;
    }

    /// Holds the next creation.
    pub(crate) fn hold(&self, at: Hold) {
        *self.creations.lock().unwrap() = Some(at);
    }

    /// Resolves when a creation is held.
    pub(crate) async fn held(&self) {
        self.held.notified().await;
    }

    pub(crate) fn let_go(&self) {
        self.let_go.notify_one();
    }

    async fn pass(&self, at: Hold) {
        let is_held = self.creations.lock().unwrap().take_if(|ordered| *ordered == at).is_some();
        if is_held {
            self.held.notify_one();
            self.let_go.notified().await;
        }
    }

    fn fate(&self, drafts: &[Draft]) -> Option<Fate> {
        let ordered = *self.updates.lock().unwrap();
        let met = ordered.filter(|(kind, _)| drafts.iter().any(|draft| draft.kind == *kind)).map(|(_, fate)| fate);
        if met.is_some() {
            self.refused.notify_one();
        }
        self.not_live.fetch_or(met == Some(Fate::NotLive), Ordering::SeqCst);
        if self.not_live.load(Ordering::SeqCst) { Some(Fate::NotLive) } else { met }
    }
}

pub(crate) struct Faulty {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) orders: Arc<Orders>,
}

#[async_trait]
impl Store for Faulty {
    fn tenant(&self, org: OrgId) -> Arc<dyn Tenant> {
        Arc::new(FaultyTenant { tenant: self.store.tenant(org), orders: Arc::clone(&self.orders) })
    }

    fn system(&self) -> Arc<dyn System> {
        self.store.system()
    }

    async fn close(&self) {
        self.store.close().await;
    }
}

struct FaultyTenant {
    tenant: Arc<dyn Tenant>,
    orders: Arc<Orders>,
}

#[async_trait]
impl Tenant for FaultyTenant {
    async fn create_session(&self, new: NewSession) -> Result<Created, CreateError> {
        self.orders.pass(Hold::BeforeCommit).await;
        let created = self.tenant.create_session(new).await;
        self.orders.pass(Hold::AfterCommit).await;
        created
    }

    async fn repeated(&self, idempotency: &Idempotency) -> Result<Option<Session>, CreateError> {
        self.tenant.repeated(idempotency).await
    }

    async fn update_session(&self, update: Update) -> Result<Vec<AuditEvent>, UpdateError> {
        match self.orders.fate(&update.drafts) {
            None => self.tenant.update_session(update).await,
            Some(Fate::Fails) => Err(StoreError::UnknownOrg.into()),
            Some(Fate::Hangs) => future::pending().await,
            Some(Fate::NotLive) => Err(UpdateError::NotLive(update.session.id)),
        }
    }

    async fn session(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.tenant.session(id).await
    }

    async fn sessions(&self, filter: SessionFilter) -> Result<SessionPage, StoreError> {
        self.tenant.sessions(filter).await
    }

    async fn result(&self, id: SessionId) -> Result<Option<SessionResult>, StoreError> {
        self.tenant.result(id).await
    }

    async fn audit(&self, filter: AuditFilter) -> Result<Vec<AuditEvent>, StoreError> {
        self.tenant.audit(filter).await
    }

    async fn audit_head(&self) -> Result<Head, StoreError> {
        self.tenant.audit_head().await
    }

    async fn append_audit(&self, drafts: Vec<Draft>) -> Result<Vec<AuditEvent>, StoreError> {
        self.tenant.append_audit(drafts).await
    }

    async fn create_key(&self, key: KeyRecord, draft: Draft) -> Result<(), StoreError> {
        self.tenant.create_key(key, draft).await
    }

    async fn keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.tenant.keys().await
    }

    async fn revoke_key(&self, id: KeyId, draft: Draft) -> Result<bool, StoreError> {
        self.tenant.revoke_key(id, draft).await
    }

    async fn change_binding(&self, change: BindingChange) -> Result<(), BindingError> {
        self.tenant.change_binding(change).await
    }

    async fn bindings(&self, filter: BindingFilter) -> Result<BindingPage, StoreError> {
        self.tenant.bindings(filter).await
    }

    async fn binding(&self, id: BindingId) -> Result<Option<BindingRecord>, StoreError> {
        self.tenant.binding(id).await
    }

    async fn binding_named(&self, name: &str) -> Result<Option<BindingRecord>, StoreError> {
        self.tenant.binding_named(name).await
    }

    async fn create_fleet(&self, new: NewFleet) -> Result<CreatedFleet, CreateError> {
        self.tenant.create_fleet(new).await
    }

    async fn repeated_fleet(&self, idempotency: &Idempotency) -> Result<Option<Fleet>, CreateError> {
        self.tenant.repeated_fleet(idempotency).await
    }

    async fn create_member(&self, seat: Seat, new: NewSession) -> Result<Vec<AuditEvent>, MemberError> {
        self.orders.pass(Hold::BeforeCommit).await;
        self.tenant.create_member(seat, new).await
    }

    async fn change_fleet(&self, change: FleetChange) -> Result<(), StoreError> {
        self.tenant.change_fleet(change).await
    }

    async fn fleet(&self, id: FleetId) -> Result<Option<Fleet>, StoreError> {
        self.tenant.fleet(id).await
    }

    async fn fleets(&self, filter: FleetFilter) -> Result<FleetPage, StoreError> {
        self.tenant.fleets(filter).await
    }

    async fn fleet_members(&self, filter: MemberFilter) -> Result<FleetMemberPage, StoreError> {
        self.tenant.fleet_members(filter).await
    }

    async fn fleet_results(&self, filter: MemberFilter) -> Result<FleetResultPage, StoreError> {
        self.tenant.fleet_results(filter).await
    }

    async fn fleet_task(&self, seat: Seat) -> Result<Option<Task>, StoreError> {
        self.tenant.fleet_task(seat).await
    }

    async fn fleet_binding_calls(&self, id: FleetId) -> Result<u64, StoreError> {
        self.tenant.fleet_binding_calls(id).await
    }
}
