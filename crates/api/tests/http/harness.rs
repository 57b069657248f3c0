//! An API to call: with its engine, its store, two orgs and keys of every role.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use api::Settings;
use axum::{
    Router,
    body::{Body, to_bytes},
};
use backend::simulator::{FailurePlan, Simulator, SimulatorConfig};
use engine::{Clock, Config, Engine, Ids, Parts, Pepper, Profile, Vault};
use http::{HeaderMap, Method, Request, StatusCode};
use model::access::Subject;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use store::{Store, sqlite::Sqlite};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use wire::{KeyId, OrgId, Role, Scope};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) struct Api {
    pub(crate) engine: Engine,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) failures: FailurePlan,
    pub(crate) router: Router,
    pub(crate) settings: Settings,
    /// The org of most tests, and another one.
    pub(crate) org: OrgId,
    pub(crate) other: OrgId,
}

/// A key that was made for a test.
pub(crate) struct Key {
    pub(crate) id: KeyId,
    pub(crate) text: String,
}

pub(crate) struct Builder {
    pub(crate) config: Config,
    pub(crate) settings: Settings,
    pub(crate) wrap: fn(Arc<dyn Store>) -> Arc<dyn Store>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            config: Config { max_concurrency: 64, ..Config::default() },
            settings: Settings::default(),
            wrap: |store| store,
        }
    }
}

impl Builder {
    pub(crate) fn dev() -> Self {
        let mut builder = Self::default();
        builder.config.profile = Profile::Dev;
        builder.settings.profile_is_dev = true;
        builder
    }

    pub(crate) fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    pub(crate) async fn start(self) -> Api {
        let store: Arc<dyn Store> = Arc::new(Sqlite::open_in_memory().await.unwrap());
        let failures = FailurePlan::default();
        let simulator = Simulator::new(SimulatorConfig { failures: failures.clone(), ..SimulatorConfig::default() });
        let parts = Parts {
            store: (self.wrap)(Arc::clone(&store)),
            backends: vec![Arc::new(simulator)],
            clock: Clock::System,
            ids: Ids::seeded(7),
            pepper: Pepper::new([9; 32]),
            vault: Vault::new([5; 32]),
            courier: Arc::new(crate::webhooks::Receiver),
        };
        let engine = Engine::start(self.config, parts).await.unwrap();
        let org = engine.ensure_org("one").await.unwrap();
        let other = engine.ensure_org("two").await.unwrap();
        let router = api::router(engine.clone(), self.settings.clone());
        Api { engine, store, failures, router, settings: self.settings, org, other }
    }
}

impl Api {
    pub(crate) async fn start() -> Self {
        Builder::default().start().await
    }

    pub(crate) async fn key(&self, org: OrgId, role: Role, scopes: Option<Vec<Scope>>) -> Key {
        let issued = self.engine.create_key(org, "test", role, scopes, Subject::Operator).await.unwrap();
        Key { id: issued.id, text: issued.presented.expose_secret().to_owned() }
    }

    pub(crate) async fn owner(&self) -> Key {
        self.key(self.org, Role::Owner, None).await
    }

    /// One request through the router, without a connection.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = tokio::time::timeout(PATIENCE, to_bytes(body, usize::MAX)).await.expect("the body ends").unwrap();
        Answer { status: parts.status, headers: parts.headers, bytes: bytes.to_vec() }
    }

    pub(crate) async fn get(&self, key: &Key, path: &str) -> Answer {
        self.send(request(Method::GET, path, Some(key), Body::empty())).await
    }

    /// A body to any path.
    pub(crate) async fn put(&self, key: &Key, method: Method, path: &str, body: &Value) -> Answer {
        self.send(request(method, path, Some(key), body.to_string().into())).await
    }

    pub(crate) async fn post(&self, key: &Key, body: impl Into<Body>) -> Answer {
        self.send(request(Method::POST, "/v1/sessions", Some(key), body.into())).await
    }

    /// Creates a session that runs this script of the simulator, and gives its id.
    pub(crate) async fn session(&self, key: &Key, script: &[&str]) -> String {
        let answer = self.post(key, program(script).to_string()).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    /// The same, once it has ended and nothing of it is left.
    pub(crate) async fn ended_session(&self, key: &Key, script: &[&str]) -> String {
        let id = self.session(key, script).await;
        let result = self.get(key, &format!("/v1/sessions/{id}/result?waitMs=20000")).await;
        assert_eq!(result.status, 200, "{result:?}");
        eventually("torn down", async || {
            self.get(key, &format!("/v1/sessions/{id}")).await.json()["phase"] == "torn_down"
        })
        .await;
        id
    }

    /// The same, once it runs.
    pub(crate) async fn running_session(&self, key: &Key, script: &[&str]) -> String {
        let id = self.session(key, script).await;
        eventually("running", async || self.get(key, &format!("/v1/sessions/{id}")).await.json()["phase"] == "running")
            .await;
        id
    }

    /// Serves on a port of loopback.
    pub(crate) async fn listen(&self) -> Listening {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = api::serve(listener, self.router.clone(), self.settings.clone(), stop.clone());
        Listening { address, stop, task: tokio::spawn(serving) }
    }
}

/// A server on a port.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

impl Listening {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that this is a problem document with this code, and gives it.
    pub(crate) fn problem(&self, code: &str) -> Value {
        let problem = self.json();
        assert_eq!(problem["code"], code, "{self:?}");
        assert_eq!(problem["status"], self.status.as_u16(), "{self:?}");
        assert_eq!(problem["type"], format!("urn:enclave:problem:{code}"), "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(problem["requestId"], self.header("x-request-id"), "{self:?}");
        for text in ["title", "detail", "requestId"] {
            assert!(problem[text].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        }
        problem
    }

    /// The fields that a problem names.
    pub(crate) fn fields(&self) -> Vec<String> {
        let errors = self.json()["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy(&self.bytes);
        write!(f, "{} {:?} {}", self.status, self.headers, text.chars().take(2000).collect::<String>())
    }
}

pub(crate) fn request(method: Method, path: &str, key: Option<&Key>, body: Body) -> Request<Body> {
    let json = [Method::POST, Method::PUT, Method::PATCH].contains(&method);
    let mut request = Request::builder().method(method).uri(path);
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {}", key.text));
    }
    if json {
        request = request.header("content-type", "application/json");
    }
    request.body(body).unwrap()
}

/// A program for the simulator.
pub(crate) fn program(script: &[&str]) -> Value {
    let lines: Vec<_> = script.iter().map(|line| format!("# sim: {line}")).collect();
    json!({ "code": lines.join("\n") })
}

/// Asks again and again until it is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, asking).await;
}

/// What must come soon.
pub(crate) async fn within<T>(what: &str, coming: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, coming).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}
