//! Who may do what: every operation of the document, tried by everybody.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use api::{Access, Operation};
use axum::body::Body;
use http::{Method, Request};
use model::access::{Subject, role_allows};
use serde_json::Value;
use store::AuditFilter;
use wire::{AuditType, Role, Scope};

use crate::{
    artifacts, bindings, files, fleets,
    harness::{Answer, Api, Builder, Key, request},
    triggers, webhooks,
};

pub(crate) const ABSENT: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// An operation as the document has it.
pub(crate) struct Documented {
    pub(crate) operation: Operation,
    method: Method,
    pub(crate) path: String,
}

pub(crate) fn documented() -> Vec<Documented> {
    let document: Value = serde_json::from_str(&api::openapi_json()).unwrap();
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, details) in item.as_object().unwrap() {
            let id = details["operationId"].as_str().unwrap();
            let operation = *Operation::ALL.iter().find(|operation| operation.id() == id).unwrap();
            found.push(Documented { operation, method: method.to_uppercase().parse().unwrap(), path: path.clone() });
        }
    }
    assert_eq!(found.len(), Operation::ALL.len());
    found
}

impl Documented {
    /// A request that succeeds for who may make it.
    pub(crate) fn request(&self, key: Option<&Key>, id: &str) -> Request<Body> {
        let body = match self.operation {
            Operation::CreateSession => r#"{"code": "1"}"#.into(),
            Operation::CreateTurn => r#"{"code": "1 + 1"}"#.into(),
            Operation::CreateFleet => r#"{"name": "a", "members": [{"code": "1"}]}"#.into(),
            Operation::CreateBinding => bindings::body(&bindings::new_name()).to_string().into(),
            Operation::UpdateBinding => r#"{"budget": {"calls": 5}}"#.into(),
            Operation::RotateBinding => r#"{"value": "another secret"}"#.into(),
            Operation::CreateTrigger => triggers::body(&triggers::new_name()).to_string().into(),
            Operation::UpdateTrigger => r#"{"enabled": false}"#.into(),
            Operation::WriteFile => "content".into(),
            Operation::CreateTerminal => "{}".into(),
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
            | Operation::RotateTriggerSecret
            | Operation::CallHook => Body::empty(),
        };
        let path = self.path.replace("{id}", id).replace("{number}", "1").replace("{path}", "a/file");
        let path = path.replace("{terminal}", &format!("trm_{ABSENT}"));
        request(self.method.clone(), &path, key, body)
    }

    fn is_of_bindings(&self) -> bool {
        self.path.starts_with("/v1/bindings")
    }

    fn is_of_triggers(&self) -> bool {
        self.path.starts_with("/v1/triggers")
    }

    fn is_of_deliveries(&self) -> bool {
        self.path.starts_with("/v1/webhooks/deliveries")
    }

    fn is_of_what_runs(&self) -> bool {
        ["/turns", "/terminals"].iter().any(|part| self.path.contains(part))
    }

    fn is_of_fleets(&self) -> bool {
        self.path.starts_with("/v1/fleets")
    }

    /// The prefix of the ids that it takes.
    pub(crate) fn prefix(&self) -> &'static str {
        if self.is_of_bindings() {
            "bnd"
        } else if self.is_of_fleets() {
            "flt"
        } else if self.is_of_deliveries() {
            "whd"
        } else if self.is_of_triggers() {
            "trg"
        } else if self.operation.access() == Access::Signature {
            // Whoever calls a hook shows no identity: `triggers.rs` says what cannot be told there.
            "hook"
        } else {
            "ses"
        }
    }

    fn is_of_files(&self) -> bool {
        self.path.contains("/files")
    }

    fn scope(&self) -> Option<Scope> {
        match self.operation.access() {
            Access::Public | Access::Signature => None,
            Access::Scope(scope) => Some(scope),
        }
    }

    /// The answer must be one that the document lists.
    fn check(&self, answer: &Answer) {
        if answer.status.is_client_error() || answer.status.is_server_error() {
            let codes = self.operation.problems();
            let code = answer.json()["code"].clone();
            let listed = codes.iter().any(|listed| serde_json::to_value(listed).unwrap() == code);
            assert!(listed, "{} answers {code}, which it does not list", self.operation.id());
        }
    }
}

#[tokio::test]
async fn without_an_identity_only_public_operations_answer() {
    let api = Api::start().await;
    let owner = api.owner().await;
    let id = api.ended_session(&owner, &["exit 0"]).await;
    for operation in documented() {
        let answer = api.send(operation.request(None, &id)).await;
        operation.check(&answer);
        match operation.operation.access() {
            Access::Public => assert_eq!(answer.status, 200, "{}", operation.path),
            Access::Signature => {
                answer.problem("unauthenticated");
            }
            Access::Scope(_) => {
                assert_eq!(answer.status, 401, "{}", operation.path);
                answer.problem("unauthenticated");
                assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"enclave\"");
            }
        }
    }
}

#[tokio::test]
async fn what_is_no_key_that_works_is_refused_everywhere_and_never_ignored() {
    let api = Builder::dev().start().await;
    let owner = api.owner().await;
    let revoked = api.owner().await;
    api.engine.revoke_key(api.org, revoked.id, Subject::Operator).await.unwrap();
    let id = api.ended_session_of_dev().await;
    let wrong = format!("{}0", &owner.text[..owner.text.len() - 1]);
    let unknown = owner.text.replacen("ek_0", "ek_1", 1);
    assert_ne!(unknown, owner.text);
    let headers = [
        format!("Bearer {}", revoked.text),
        format!("Bearer {wrong}"),
        format!("Bearer {unknown}"),
        format!("Basic {}", owner.text),
        format!("Bearer {} x", owner.text),
        owner.text.clone(),
        "Bearer".into(),
        "Bearer ek_".into(),
        "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJvd25lciJ9.".into(),
    ];
    for operation in documented().iter().filter(|operation| operation.scope().is_some()) {
        for header in &headers {
            let mut asked = operation.request(None, &id);
            asked.headers_mut().insert("host", "localhost".parse().unwrap());
            asked.headers_mut().insert("authorization", header.parse().unwrap());
            let answer = api.send(asked).await;
            assert_eq!(answer.status, 401, "{} with {header}", operation.path);
            answer.problem("unauthenticated");
            assert!(answer.header("www-authenticate").contains("invalid_token"));
            assert!(!String::from_utf8_lossy(&answer.bytes).contains("ek_0"), "the key comes back");
        }
    }
}

/// One row per operation: who may call it.
const TABLE: &[&str] = &[
    "createBinding: admin owner",
    "createFleet: developer admin owner",
    "createSession: developer admin owner",
    "createTerminal: developer admin owner",
    "createTrigger: developer admin owner",
    "createTurn: developer admin owner",
    "deleteBinding: admin owner",
    "deleteFile: developer admin owner",
    "deleteFleet: developer admin owner",
    "deleteSession: developer admin owner",
    "deleteTerminal: developer admin owner",
    "deleteTrigger: developer admin owner",
    "fireTrigger: developer admin owner",
    "getArtifact: viewer developer admin owner",
    "getBinding: viewer developer admin owner",
    "getDocs: nobody viewer developer admin owner audit-only",
    "getFleet: viewer developer admin owner",
    "getFleetResults: viewer developer admin owner",
    "getHealth: nobody viewer developer admin owner audit-only",
    "getOpenApi: nobody viewer developer admin owner audit-only",
    "getReadiness: nobody viewer developer admin owner audit-only",
    "getSession: viewer developer admin owner",
    "getSessionAudit: viewer developer admin owner audit-only",
    "getSessionResult: viewer developer admin owner",
    "getTerminal: viewer developer admin owner",
    "getTrigger: viewer developer admin owner",
    "getTriggerRuns: viewer developer admin owner",
    "getTurn: viewer developer admin owner",
    "getWebhookSecret: admin owner",
    "interruptTurn: developer admin owner",
    "listArtifacts: viewer developer admin owner",
    "listBackends: viewer developer admin owner",
    "listBindings: viewer developer admin owner",
    "listDeliveries: viewer developer admin owner",
    "listFiles: viewer developer admin owner",
    "listFleetMembers: viewer developer admin owner",
    "listFleets: viewer developer admin owner",
    "listSessions: viewer developer admin owner",
    "listTerminals: viewer developer admin owner",
    "listTriggers: viewer developer admin owner",
    "listTurns: viewer developer admin owner",
    "readFile: viewer developer admin owner",
    "retryDelivery: developer admin owner",
    "rotateBinding: admin owner",
    "rotateTriggerSecret: developer admin owner",
    "rotateWebhookSecret: admin owner",
    "streamFleet: viewer developer admin owner",
    "streamSession: viewer developer admin owner",
    "updateBinding: admin owner",
    "updateTrigger: developer admin owner",
    "writeFile: developer admin owner",
];

#[tokio::test]
async fn every_role_may_do_what_the_table_says_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut builder = Builder::default();
    builder.config.artifacts = Some(artifacts::keep(&folder));
    let api = builder.start().await;
    let owner = api.owner().await;
    let fleet = fleets::ended(&api, &owner, 1).await;
    let delivery = webhooks::delivered(&api, &owner).await;
    let session = artifacts::left(&api, &owner, "a/file").await;
    let running = api.running_session(&owner, &["sleep 1h"]).await;
    let mut callers = vec![("nobody".to_owned(), None)];
    for role in Role::ALL {
        callers.push((role.to_string(), Some(api.key(api.org, role, None).await)));
    }
    callers.push(("audit-only".into(), Some(api.key(api.org, Role::Owner, Some(vec![Scope::AuditRead])).await)));
    let mut table = Vec::new();
    let mut refusals = 0;
    for operation in documented().iter().filter(|operation| operation.operation.access() != Access::Signature) {
        let mut row = format!("{}:", operation.operation.id());
        for (name, key) in &callers {
            // A deletion leaves nothing for the next caller.
            let binding = if operation.is_of_bindings() { Some(bindings::created(&api, &owner).await) } else { None };
            let own = match operation.prefix() {
                "flt" => &fleet,
                "whd" => &delivery,
                _ if operation.is_of_files() => &running,
                _ => &session,
            };
            let trigger = if operation.is_of_triggers() { Some(triggers::created(&api, &owner).await) } else { None };
            let id = binding.as_ref().or(trigger.as_ref()).unwrap_or(own);
            if operation.is_of_files() {
                files::put(&api, &owner, &running, "a/file", "content").await;
            }
            let answer = api.send(operation.request(key.as_ref(), id)).await;
            operation.check(&answer);
            match answer.status.as_u16() {
                // The session is not interactive, and runs no more, and says so to who may know.
                200 | 201 | 204 | 404 | 409 if answer.status.is_success() || operation.is_of_what_runs() => {
                    row.push(' ');
                    row.push_str(name);
                }
                401 => assert!(key.is_none(), "{name} {answer:?}"),
                403 => {
                    let problem = answer.problem("forbidden");
                    let scope = operation.scope().unwrap();
                    assert!(problem["detail"].as_str().unwrap().contains(scope.as_str()), "{answer:?}");
                    refusals += 1;
                }
                other => panic!("{name} got {other}: {answer:?}"),
            }
        }
        table.push(row);
    }
    table.sort();
    assert_eq!(table, TABLE);

    let audited =
        api.store.tenant(api.org).audit(AuditFilter { session: None, after_seq: 0, limit: 1000 }).await.unwrap();
    let denied: Vec<_> = audited.iter().filter(|event| event.kind == AuditType::AccessDenied).collect();
    assert_eq!(denied.len(), refusals);
    assert!(denied.iter().any(|event| event.data["operation"] == "createSession" && event.data["role"] == "viewer"));
}

#[tokio::test]
async fn a_key_narrowed_beyond_its_role_gains_nothing() {
    let api = Api::start().await;
    let key = api.key(api.org, Role::Viewer, Some(Scope::ALL.to_vec())).await;
    let answer = api.post(&key, r#"{"code": "1"}"#).await;
    assert_eq!(answer.status, 403);
    assert!(!role_allows(Role::Viewer, Scope::SessionsWrite));
}

#[tokio::test]
async fn the_body_is_not_touched_before_the_caller_is_known_and_allowed() {
    let api = Api::start().await;
    let viewer = api.key(api.org, Role::Viewer, None).await;
    let owner = api.owner().await;
    for (key, status, touched) in [(None, 401, false), (Some(&viewer), 403, false), (Some(&owner), 201, true)] {
        let polled = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&polled);
        let body = Body::from_stream(futures::stream::once(async move {
            seen.store(true, Ordering::Relaxed);
            Ok::<_, Infallible>(r#"{"code": "1"}"#)
        }));
        let answer = api.send(request(Method::POST, "/v1/sessions", key, body)).await;
        assert_eq!((answer.status.as_u16(), polled.load(Ordering::Relaxed)), (status, touched));
    }
}

impl Api {
    async fn ended_session_of_dev(&self) -> String {
        let mut asked = request(Method::POST, "/v1/sessions", None, r#"{"code": "1"}"#.into());
        asked.headers_mut().insert("host", "localhost".parse().unwrap());
        self.send(asked).await.json()["id"].as_str().unwrap().to_owned()
    }
}
