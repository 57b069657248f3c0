//! Examples in the document, made of the contract's own types so that they cannot fall behind it.

mod bindings;
mod files;
mod fleets;
mod terminals;
mod triggers;
mod turns;
mod webhooks;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;
use wire::{
    ArtifactPage, AuditEvent, AuditPage, AuditSource, AuditType, BackendPage, BackendView, BindingPage, CreateSession,
    DeliveryPage, Egress, Enforcement, ErrorCode, ExecMode, FieldError, FleetMemberPage, FleetPage, FleetResultPage,
    Health, HealthStatus, Isolation, Language, Limits, LimitsView, OrgId, Outcome, Phase, Problem, Readiness,
    ReadyBackend, Session, SessionId, SessionPage, SessionResult, TerminalPage, Timestamp, TriggerPage, TriggerRuns,
    Usage,
};

use crate::access::Operation;

const MIB: u64 = 1024 * 1024;
/// 2026-01-31T09:05:00.000Z
const ACCEPTED_MS: i64 = 1_769_850_300_000;

pub(crate) fn request(operation: Operation) -> Option<Value> {
    match operation {
        Operation::CreateSession => Some(create_session()),
        Operation::CreateTurn => Some(value(&turns::create())),
        Operation::CreateTerminal => Some(value(&terminals::create())),
        Operation::CreateFleet => Some(value(&fleets::create())),
        Operation::CreateBinding => Some(value(&bindings::create())),
        Operation::UpdateBinding => Some(value(&bindings::update())),
        Operation::RotateBinding => Some(value(&bindings::secret())),
        Operation::CreateTrigger => Some(value(&triggers::create())),
        Operation::UpdateTrigger => Some(value(&triggers::update())),
        Operation::CallHook => Some(json!({ "event": "push", "ref": "refs/heads/main" })),
        Operation::GetHealth
        | Operation::GetReadiness
        | Operation::GetOpenApi
        | Operation::GetDocs
        | Operation::ListBackends
        | Operation::ListSessions
        | Operation::GetSession
        | Operation::DeleteSession
        | Operation::GetSessionResult
        | Operation::StreamSession
        | Operation::GetSessionAudit
        | Operation::ListTurns
        | Operation::GetTurn
        | Operation::InterruptTurn
        | Operation::ListTerminals
        | Operation::GetTerminal
        | Operation::DeleteTerminal
        | Operation::ListFleets
        | Operation::GetFleet
        | Operation::DeleteFleet
        | Operation::ListFleetMembers
        | Operation::GetFleetResults
        | Operation::StreamFleet
        | Operation::ListFiles
        | Operation::ReadFile
        | Operation::WriteFile
        | Operation::DeleteFile
        | Operation::ListArtifacts
        | Operation::GetArtifact
        | Operation::ListBindings
        | Operation::GetBinding
        | Operation::DeleteBinding
        | Operation::ListDeliveries
        | Operation::RetryDelivery
        | Operation::GetWebhookSecret
        | Operation::RotateWebhookSecret
        | Operation::ListTriggers
        | Operation::GetTrigger
        | Operation::DeleteTrigger
        | Operation::GetTriggerRuns
        | Operation::FireTrigger
        | Operation::RotateTriggerSecret => None,
    }
}

fn create_session() -> Value {
    let request = CreateSession {
        code: Some("print('hello')\nenclave.result({'answer': 42})".into()),
        limits: Limits { memory_bytes: Some(256 * MIB), wall_clock_ms: Some(10_000), ..Limits::default() },
        labels: labels(),
        ..CreateSession::default()
    };
    value(&request)
}

pub(crate) fn response(operation: Operation) -> Option<Value> {
    Some(match operation {
        Operation::GetHealth => value(&Health { status: HealthStatus::Ok, version: env!("CARGO_PKG_VERSION").into() }),
        Operation::GetReadiness => value(&Readiness {
            status: HealthStatus::Ok,
            reason: None,
            backends: vec![ReadyBackend {
                name: "gvisor".into(),
                isolation: Isolation::UserspaceKernel,
                reachable: true,
            }],
        }),
        Operation::GetOpenApi
        | Operation::GetDocs
        | Operation::ReadFile
        | Operation::DeleteFile
        | Operation::DeleteTerminal
        | Operation::GetArtifact => return None,
        Operation::ListArtifacts => value(&ArtifactPage { items: vec![files::artifact()] }),
        Operation::ListFiles => value(&files::page()),
        Operation::WriteFile => value(&files::stored()),
        Operation::ListBackends => value(&BackendPage {
            items: vec![BackendView {
                name: "gvisor".into(),
                isolation: Isolation::UserspaceKernel,
                executes: true,
                default: true,
                languages: vec![Language::Python, Language::Node],
                exec_modes: vec![ExecMode::Oneshot, ExecMode::Interactive],
                enforcement: enforcement(),
                images: vec!["default".into()],
            }],
        }),
        Operation::CreateSession => value(&pending()),
        Operation::ListSessions => value(&SessionPage { items: vec![ended()], next_cursor: None }),
        Operation::GetSession | Operation::DeleteSession => value(&ended()),
        Operation::GetSessionResult => value(&result()),
        Operation::StreamSession => json!({ "text": "hello\n", "offset": 0 }),
        Operation::CreateTurn | Operation::GetTurn | Operation::InterruptTurn => value(&turns::turn()),
        Operation::ListTurns => value(&turns::page()),
        Operation::CreateTerminal | Operation::GetTerminal => value(&terminals::terminal()),
        Operation::ListTerminals => value(&TerminalPage { items: vec![terminals::terminal()] }),
        Operation::CreateFleet => value(&fleets::pending()),
        Operation::ListFleets => value(&FleetPage { items: vec![fleets::ended()], next_cursor: None }),
        Operation::GetFleet | Operation::DeleteFleet => value(&fleets::ended()),
        Operation::ListFleetMembers => value(&FleetMemberPage { items: vec![fleets::member()], next_cursor: None }),
        Operation::GetFleetResults => value(&FleetResultPage { items: vec![fleets::result()], next_cursor: None }),
        Operation::StreamFleet => value(&fleets::progress()),
        Operation::CreateBinding
        | Operation::GetBinding
        | Operation::UpdateBinding
        | Operation::DeleteBinding
        | Operation::RotateBinding => value(&bindings::binding()),
        Operation::ListBindings => {
            value(&BindingPage { items: vec![bindings::binding()], next_cursor: Some("Z2l0aHVi".into()) })
        }
        Operation::ListDeliveries => {
            value(&DeliveryPage { items: vec![webhooks::delivery()], next_cursor: Some("MTc".into()) })
        }
        Operation::RetryDelivery => value(&webhooks::delivery()),
        Operation::GetWebhookSecret => value(&webhooks::secret()),
        Operation::RotateWebhookSecret => value(&webhooks::rotated()),
        Operation::CreateTrigger => value(&triggers::scheduled_with_secret()),
        Operation::RotateTriggerSecret => value(&triggers::called_with_secret()),
        Operation::ListTriggers => {
            value(&TriggerPage { items: vec![triggers::scheduled()], next_cursor: Some("bmlnaHRseQ".into()) })
        }
        Operation::GetTrigger | Operation::UpdateTrigger | Operation::DeleteTrigger => value(&triggers::scheduled()),
        Operation::GetTriggerRuns => value(&TriggerRuns { items: vec![triggers::run()] }),
        Operation::FireTrigger | Operation::CallHook => value(&triggers::run()),
        Operation::GetSessionAudit => value(&AuditPage { items: vec![event()], next_cursor: Some("17".into()) }),
    })
}

pub(crate) fn problem(code: ErrorCode) -> Value {
    let (detail, errors) = if code == ErrorCode::InvalidRequest {
        ("the request has a fault", vec![FieldError::new("limits.memoryBytes", "must be at most 17179869184")])
    } else if code == ErrorCode::NotEnforceable {
        let message = "backend gvisor has no gateway that could enforce an allowlist";
        ("the policy, on backend gvisor, has a fault", vec![FieldError::new("egress.mode", message)])
    } else {
        (code.title(), vec![])
    };
    let mut problem = Problem::new(code, detail).with_errors(errors);
    problem.request_id = "5f0c1f3e-6f0a-4f57-9d1c-0d2c7a9b3e11".into();
    value(&problem)
}

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).expect("contract types have string keys only")
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(ACCEPTED_MS + ms)
}

fn id() -> SessionId {
    SessionId::from_uuid(Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057))
}

fn org() -> OrgId {
    OrgId::from_uuid(Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_0001))
}

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("team".to_owned(), "search".to_owned())])
}

fn pending() -> Session {
    Session {
        id: id(),
        org_id: org(),
        created_by: "key_01890a5d-ac96-774b-bcce-b302099a0002".into(),
        phase: Phase::Pending,
        outcome: None,
        kill_reason: None,
        fault: None,
        language: Language::Python,
        exec_mode: ExecMode::Oneshot,
        interactive: None,
        backend: "gvisor".into(),
        isolation: Isolation::UserspaceKernel,
        image: "default".into(),
        limits: LimitsView {
            cpu: 1.0,
            cpu_time_ms: None,
            memory_bytes: 256 * MIB,
            wall_clock_ms: 10_000,
            pids: 128,
            disk_bytes: 512 * MIB,
            output_bytes: 10 * MIB,
        },
        egress: Egress::default(),
        service_bindings: vec![],
        labels: labels(),
        args: vec![],
        env: BTreeMap::new(),
        created_at: at(0),
        started_at: None,
        finished_at: None,
        torn_down_at: None,
        usage: None,
        enforcement: enforcement(),
    }
}

fn ended() -> Session {
    Session {
        phase: Phase::TornDown,
        outcome: Some(Outcome::Succeeded),
        started_at: Some(at(190)),
        finished_at: Some(at(260)),
        torn_down_at: Some(at(310)),
        usage: Some(usage()),
        ..pending()
    }
}

fn usage() -> Usage {
    Usage { cpu_ms: 61, memory_peak_bytes: 23 * MIB, wall_ms: 70, egress_bytes: 0 }
}

fn enforcement() -> Enforcement {
    Enforcement {
        kernel: "gVisor sentry, platform systrap".into(),
        egress: "no network: the sandbox has a loopback interface and nothing else".into(),
        cpu: "cgroup cpu.max; CPU time read from cpu.stat".into(),
        memory: "cgroup memory.max, out-of-memory events".into(),
        pids: "pids.max inside the sandbox".into(),
        disk: "size of the tmpfs mounts".into(),
        wall_clock: "timer of the control plane".into(),
    }
}

fn result() -> SessionResult {
    SessionResult {
        session_id: id(),
        outcome: Outcome::Succeeded,
        kill_reason: None,
        fault: None,
        exit_code: Some(0),
        result: Some(json!({ "answer": 42 }).into()),
        stdout_tail: "hello\n".into(),
        stdout_truncated: false,
        stdout_tail_offset: 0,
        stderr_tail: String::new(),
        stderr_truncated: false,
        stderr_tail_offset: 0,
        artifacts: vec![],
        artifacts_skipped: vec![],
        usage: usage(),
        denials: vec![],
    }
}

fn event() -> AuditEvent {
    AuditEvent {
        seq: 17,
        ts: at(0),
        kind: AuditType::SessionCreated,
        session_id: Some(id()),
        actor: "key_01890a5d-ac96-774b-bcce-b302099a0002".into(),
        source: AuditSource::Platform,
        data: json!({ "backend": "gvisor", "language": "python" }),
        prev_hash: "9f2c".repeat(16),
        hash: "41d8".repeat(16),
    }
}
