//! Bindings against real services, which these tests start.

mod calls;
mod kinds;
mod latency;
mod oauth;
mod reflection;
mod streams;
mod upstream;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use model::{
    egress::{Deployment, Permit, Policy},
    gateway::{BoundService, Credential, FromGateway, GatewayEvent, GatewayLimits},
    secret::Secret,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use wire::{AuditType, BindingId, Egress};

use super::*;
use crate::{answer::Body, outside::Outside, tell::Teller};

const SECRET: &str = "hunter2/hunter2+hunter2";

/// A session with bindings, and all that was told.
struct Session {
    bindings: Arc<Bindings>,
    ids: Vec<BindingId>,
    told: Arc<Mutex<Vec<GatewayEvent>>>,
}

/// An answer, read to its end.
struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Bytes,
    /// Whether the body came to its end.
    is_whole: bool,
}

impl Session {
    /// With these specs, as JSON, and their credentials.
    fn with(specs: &[(Value, Credential)]) -> Self {
        Self::in_deployment(specs, vec![Permit { net: "127.0.0.0/8".parse().unwrap(), ports: vec![] }])
    }

    fn in_deployment(specs: &[(Value, Credential)], permitted: Vec<Permit>) -> Self {
        let (said, mut heard) = mpsc::channel(64);
        let told = Arc::new(Mutex::new(Vec::new()));
        let policy = Policy::new(&Egress::default(), Deployment { permitted, own: vec![] });
        let outside = Arc::new(Outside::asking(None, policy, GatewayLimits::default()).unwrap());
        let bound = |(spec, credential): &(Value, Credential)| BoundService {
            id: BindingId::from_uuid(uuid::Uuid::now_v7()),
            spec: serde_json::from_value(spec.clone()).unwrap(),
            credential: credential.clone(),
        };
        let bound: Vec<BoundService> = specs.iter().map(bound).collect();
        let ids = bound.iter().map(|bound| bound.id).collect();
        let bindings = Arc::new(Bindings::new(bound, outside, Teller::new(said)));
        let kept = told.clone();
        tokio::spawn(async move {
            while let Some(FromGateway::Event(event)) = heard.recv().await {
                kept.lock().unwrap().push(event);
            }
        });
        Self { bindings, ids, told }
    }

    async fn send(&self, name: &str, request: Request<Full<Bytes>>) -> Answer {
        read(self.bindings.serve(name, request).await).await
    }

    async fn get(&self, name: &str, path: &str) -> Answer {
        self.send(name, get(path)).await
    }

    /// The events of this type. Everything that was told before has arrived.
    async fn told(&self, kind: AuditType) -> Vec<GatewayEvent> {
        tokio::task::yield_now().await;
        // The channel is drained by a task of the same runtime, in turn.
        let all = self.told.lock().unwrap().clone();
        all.into_iter().filter(|event| event.kind == kind).collect()
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Asserts that it is this problem, and gives its detail.
    #[track_caller]
    fn problem(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{:?}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.json()["code"], code);
        self.json()["detail"].as_str().unwrap().to_owned()
    }
}

async fn read(response: Response<Body>) -> Answer {
    let (parts, mut body) = response.into_parts();
    let (mut all, mut is_whole) = (Vec::new(), true);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => all.extend_from_slice(&frame.into_data().unwrap()),
            Err(_) => is_whole = false,
        }
    }
    Answer { status: parts.status, headers: parts.headers, body: all.into(), is_whole }
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).unwrap()
}

fn secret(value: &str) -> Credential {
    Credential { value: Secret::from(value.to_owned()), ..Credential::default() }
}

/// A binding named `svc` of this kind, to this URL.
fn spec(kind: &Value, url: &str) -> Value {
    json!({ "name": "svc", "kind": kind, "upstream": { "url": url } })
}

/// The same, with more fields.
fn with(mut spec: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

fn bearer(url: &str) -> Value {
    spec(&json!({"type": "bearer"}), url)
}
