//! What the cases are made of.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use model::audit::Draft;
use serde_json::{Value, json};
use uuid::Uuid;
use wire::{
    AuditEvent, AuditType, Binding, BindingId, BindingKind, BindingSpec, BindingUpstream, DeliveryId, Egress,
    Enforcement, ExecMode, Isolation, JsonText, KeyId, Language, LimitsView, OrgId, Outcome, Phase, Role, Session,
    SessionId, SessionResult, Timestamp, TriggerId, Usage, WebhookEventType,
};

use crate::{
    AuditFilter, BindingRecord, KeyRecord, NewSession, OutboxMessage, Store, System, Tenant, Update,
    conformance::Subject, verify,
};

/// Ids are numbered over the whole process, so that later ones sort behind earlier ones as version 7 does.
static IDS: AtomicU64 = AtomicU64::new(1);

/// A new uuid, behind every earlier one.
pub(super) fn uuid() -> Uuid {
    let number = u128::from(IDS.fetch_add(1, Ordering::Relaxed));
    let variant = (7 << 76) | (2 << 62);
    // Two processes that write to one database make different ids.
    let process = u128::from(std::process::id());
    Uuid::from_u128(((0x0190_0000_0000 + number) << 80) | variant | process)
}

/// A new session id, behind every earlier one.
pub fn session_id() -> SessionId {
    SessionId::from_uuid(uuid())
}

/// A new org id.
pub fn org_id() -> OrgId {
    OrgId::from_uuid(uuid())
}

/// A new key id, behind every earlier one.
pub fn key_id() -> KeyId {
    KeyId::from_uuid(uuid())
}

/// A new binding id.
pub fn binding_id() -> BindingId {
    BindingId::from_uuid(uuid())
}

/// A new trigger id.
pub fn trigger_id() -> TriggerId {
    TriggerId::from_uuid(uuid())
}

/// The moment of everything that happens here.
pub fn now() -> Timestamp {
    Timestamp::from_millis(1_795_500_000_123)
}

/// A store with an org that nobody else uses.
#[derive(Clone)]
pub struct World {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Its system handle.
    pub system: Arc<dyn System>,
    /// The org.
    pub org: OrgId,
    /// Its handle.
    pub tenant: Arc<dyn Tenant>,
}

impl World {
    /// A new org in the subject's store.
    pub async fn new(subject: &dyn Subject) -> Self {
        Self::of(subject.store()).await
    }

    /// A new org in this store.
    pub async fn of(store: Arc<dyn Store>) -> Self {
        let (system, candidate) = (store.system(), org_id());
        let org = system.ensure_org(&candidate.to_string(), candidate).await.expect("an org is made").id;
        Self { system, org, tenant: store.tenant(org), store }
    }

    /// A session of this org, pending.
    pub fn session(&self) -> Session {
        session(self.org)
    }

    /// Records a session, pending, with one audit event.
    pub async fn created(&self) -> Session {
        let session = self.session();
        self.tenant.create_session(new(&session)).await.expect("a session is recorded");
        session
    }

    /// Records that the session is in another phase, with one audit event.
    pub async fn moved(&self, session: &Session, phase: Phase) -> Session {
        let update = update(session, phase);
        let session = update.session.clone();
        self.tenant.update_session(update).await.expect("a live session is updated");
        session
    }

    /// The session's audit events.
    pub async fn audit_of(&self, id: SessionId) -> Vec<AuditEvent> {
        let filter = AuditFilter { session: Some(id), after_seq: 0, limit: 1000 };
        self.tenant.audit(filter).await.expect("the audit log is read")
    }

    /// The length of the org's chain, which must verify.
    pub async fn verified(&self) -> u64 {
        verify(&*self.store, self.org).await.expect("the chain verifies").seq
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("org", &self.org).finish_non_exhaustive()
    }
}

/// A session of an org, pending.
pub fn session(org: OrgId) -> Session {
    let text = |text: &str| text.to_owned();
    Session {
        id: session_id(),
        org_id: org,
        created_by: text("key_1"),
        phase: Phase::Pending,
        outcome: None,
        kill_reason: None,
        fault: None,
        language: Language::Python,
        exec_mode: ExecMode::Oneshot,
        interactive: None,
        backend: text("simulator"),
        isolation: Isolation::Simulated,
        image: text("base"),
        limits: LimitsView {
            cpu: 1.0,
            cpu_time_ms: None,
            memory_bytes: 512 << 20,
            wall_clock_ms: 60_000,
            pids: 128,
            disk_bytes: 512 << 20,
            output_bytes: 10 << 20,
        },
        egress: Egress::default(),
        service_bindings: Vec::new(),
        labels: BTreeMap::new(),
        args: Vec::new(),
        env: BTreeMap::new(),
        created_at: now(),
        started_at: None,
        finished_at: None,
        torn_down_at: None,
        usage: None,
        enforcement: Enforcement {
            kernel: text("none: nothing is executed"),
            egress: text("none: nothing is executed"),
            cpu: text("modelled"),
            memory: text("modelled"),
            pids: text("modelled"),
            disk: text("modelled"),
            wall_clock: text("modelled"),
        },
    }
}

/// The creation of a session, with one audit event.
pub fn new(session: &Session) -> NewSession {
    let drafts = vec![draft(AuditType::SessionCreated, session.id)];
    NewSession { session: session.clone(), idempotency: None, drafts, webhook_url: None, firing: None }
}

/// The session in another phase, with the audit event that goes with it.
pub fn update(session: &Session, phase: Phase) -> Update {
    let mut session = session.clone();
    session.phase = phase;
    let drafts = vec![draft(event_of(phase), session.id)];
    Update { session, sandbox: None, result: None, drafts, outbox: Vec::new(), artifacts: Vec::new() }
}

/// The last audit event of a session in this phase.
pub fn event_of(phase: Phase) -> AuditType {
    match phase {
        Phase::Pending => AuditType::SessionCreated,
        Phase::Running => AuditType::SandboxStarted,
        Phase::Paused => AuditType::SessionPaused,
        Phase::Succeeded | Phase::Failed => AuditType::WorkloadExited,
        Phase::Killed => AuditType::QuotaKilled,
        Phase::TornDown => AuditType::SessionTornDown,
    }
}

/// An audit event of a session.
pub fn draft(kind: AuditType, session: SessionId) -> Draft {
    Draft::platform(now(), kind, session, json!({ "n": 1, "nested": { "b": [true, null], "a": "text" } }))
}

/// A result with this value.
pub fn result(session: SessionId, value: Option<Value>) -> SessionResult {
    SessionResult {
        session_id: session,
        outcome: Outcome::Succeeded,
        kill_reason: None,
        fault: None,
        exit_code: Some(0),
        result: value.map(JsonText::from),
        stdout_tail: "out\n".to_owned(),
        stdout_truncated: false,
        stdout_tail_offset: 0,
        stderr_tail: String::new(),
        stderr_truncated: true,
        stderr_tail_offset: 7,
        artifacts: Vec::new(),
        artifacts_skipped: Vec::new(),
        usage: Usage { cpu_ms: 1, memory_peak_bytes: 2, wall_ms: 3, egress_bytes: 4 },
        denials: Vec::new(),
    }
}

/// A message for the outbox.
pub fn message(payload: &str) -> OutboxMessage {
    OutboxMessage {
        id: DeliveryId::from_uuid(uuid()),
        session: session_id(),
        kind: WebhookEventType::SessionFinished,
        url: "https://receiver.example.com/hook".to_owned(),
        payload: payload.to_owned(),
        created_at: now(),
        until: Timestamp::from_millis(now().as_millis() + 86_400_000),
    }
}

/// A key of the org, with the audit event of its creation.
pub fn key(org: OrgId, name: &str) -> (KeyRecord, Draft) {
    let id = key_id();
    let record = KeyRecord {
        id,
        org,
        name: name.to_owned(),
        role: Role::Developer,
        scopes: None,
        secret_hash: "00".repeat(32),
        created_at: now(),
        revoked_at: None,
    };
    (record, key_draft(AuditType::KeyCreated, id))
}

/// An audit event about a key.
pub fn key_draft(kind: AuditType, id: KeyId) -> Draft {
    Draft { session_id: None, data: json!({ "key": id }), ..draft(kind, session_id()) }
}

/// A binding of the org.
pub fn binding(org: OrgId, name: &str) -> BindingRecord {
    let upstream = BindingUpstream { url: "https://api.example.com".to_owned(), ca_pem: None };
    let spec =
        BindingSpec { name: name.to_owned(), kind: BindingKind::Bearer, upstream, allow: Vec::new(), budget: None };
    let binding = Binding {
        id: binding_id(),
        org_id: org,
        spec,
        secret_version: 1,
        rotated_at: now(),
        created_at: now(),
        updated_at: now(),
    };
    BindingRecord { binding, sealed: (0..=255).collect(), revision: 1 }
}

/// An audit event about a binding.
pub fn binding_draft(kind: AuditType, id: BindingId) -> Draft {
    Draft { session_id: None, data: json!({ "binding": id }), ..draft(kind, session_id()) }
}

/// The types of audit events, in order.
pub fn kinds(events: &[AuditEvent]) -> Vec<AuditType> {
    events.iter().map(|event| event.kind).collect()
}
