//! Terminals of a session that runs, over real sockets, on the simulator's model of a shell.

use axum::body::Body;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Method, header};
use serde_json::{Value, json};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::client::generate_key, protocol::Role},
};
use wire::Role as Who;

use crate::harness::{Answer, Api, Builder, Key, Listening, eventually, request, within};

/// What the simulated shell says when it waits.
const PROMPT: &str = "$ ";

/// A session that runs and a server in front of it.
struct Scene {
    api: Api,
    key: Key,
    id: String,
    server: Listening,
}

impl Scene {
    async fn new() -> Self {
        let api = Api::start().await;
        let key = api.owner().await;
        let id = api.running_session(&key, &["sleep 1h"]).await;
        let server = api.listen().await;
        Self { api, key, id, server }
    }

    fn path(&self) -> String {
        format!("/v1/sessions/{}/terminals", self.id)
    }

    async fn open(&self, body: &Value) -> Answer {
        self.api.put(&self.key, Method::POST, &self.path(), body).await
    }

    /// Opens a shell, and gives its path.
    async fn shell(&self) -> String {
        let answer = self.open(&json!({})).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.header("location").to_owned()
    }

    async fn delete(&self, path: &str) -> Answer {
        self.api.send(request(Method::DELETE, path, Some(&self.key), Body::empty())).await
    }

    /// The answer to an upgrade.
    async fn upgrade(&self, path: &str, key: Option<&Key>) -> reqwest::Response {
        let http = reqwest::Client::builder().no_proxy().http1_only().build().unwrap();
        let mut asked = http
            .get(self.server.url(path))
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", generate_key());
        if let Some(key) = key {
            asked = asked.bearer_auth(&key.text);
        }
        asked.send().await.unwrap()
    }

    async fn attach(&self, path: &str) -> Socket {
        let response = self.upgrade(path, Some(&self.key)).await;
        assert_eq!(response.status(), 101, "{}", response.text().await.unwrap());
        let upgraded = response.upgrade().await.unwrap();
        let stream = WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await;
        Socket { stream, seen: Vec::new(), at: 0 }
    }

    async fn refused(&self, path: &str, key: Option<&Key>) -> (u16, String) {
        let response = self.upgrade(path, key).await;
        let status = response.status().as_u16();
        let problem: Value = response.json().await.unwrap();
        (status, problem["code"].as_str().unwrap().to_owned())
    }

    async fn audited(&self, kind: &str) -> Vec<Value> {
        let page = self.api.get(&self.key, &format!("/v1/sessions/{}/audit?limit=1000", self.id)).await.json();
        let events = page["items"].as_array().unwrap().iter();
        events.filter(|event| event["type"] == kind).map(|event| event["data"].clone()).collect()
    }
}

struct Socket {
    stream: WebSocketStream<reqwest::Upgraded>,
    seen: Vec<u8>,
    /// How much output there was before what comes next.
    at: u64,
}

impl Socket {
    async fn next(&mut self) -> Option<Message> {
        within("a message", self.stream.next()).await.and_then(Result::ok)
    }

    /// The next text message, as JSON.
    async fn event(&mut self) -> Value {
        loop {
            let message = self.next().await.expect("the socket is open");
            if let Message::Text(text) = message {
                return serde_json::from_str(&text).unwrap();
            } else if let Message::Binary(data) = message {
                self.take(&data);
            }
        }
    }

    fn take(&mut self, data: &[u8]) {
        self.at += data.len() as u64;
        self.seen.extend(data);
    }

    /// The first message.
    async fn attached(&mut self) -> u64 {
        self.at = self.event().await["attached"]["offset"].as_u64().unwrap();
        self.at
    }

    async fn types(&mut self, text: &str) {
        self.stream.send(Message::binary(text.as_bytes().to_vec())).await.unwrap();
    }

    /// Waits for a text, and forgets what came up to it.
    async fn expect(&mut self, text: &str) {
        loop {
            let seen = String::from_utf8_lossy(&self.seen).into_owned();
            if let Some(at) = seen.find(text) {
                self.seen = seen[at + text.len()..].into();
                return;
            }
            match self.next().await {
                Some(Message::Binary(data)) => self.take(&data),
                Some(Message::Close(_)) | None => panic!("closed without {text:?}: {seen}"),
                Some(_) => {}
            }
        }
    }

    /// How it ends.
    async fn close(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Some(Message::Close(Some(frame))) => return (frame.code.into(), frame.reason.to_string()),
                Some(Message::Binary(data)) => self.take(&data),
                Some(Message::Close(None)) | None => panic!("the socket ends without a reason"),
                Some(_) => {}
            }
        }
    }
}

#[tokio::test]
async fn a_shell_echoes_is_resized_and_ends_with_its_exit_code() {
    let scene = Scene::new().await;
    let opened = scene.open(&json!({"rows": 30, "cols": 100, "env": {"A": "b"}})).await;
    assert_eq!(opened.status, 201, "{opened:?}");
    let terminal = opened.json();
    let path = opened.header("location").to_owned();
    assert_eq!(path, format!("{}/{}", scene.path(), terminal["id"].as_str().unwrap()));
    assert_eq!(
        (&terminal["rows"], &terminal["cols"], &terminal["state"]),
        (&30.into(), &100.into(), &"running".into())
    );
    assert_eq!(scene.api.get(&scene.key, &path).await.json(), terminal);
    assert_eq!(scene.api.get(&scene.key, &scene.path()).await.json(), json!({"items": [terminal]}));
    let mut socket = scene.attach(&path).await;
    assert_eq!(socket.attached().await, 0);
    socket.expect(PROMPT).await;
    socket.types("echo hello\r").await;
    socket.expect("echo hello\r\nhello\r\n").await;
    socket.types("stty size\r").await;
    socket.expect("30 100\r\n").await;
    let control = json!({"resize": {"rows": 50, "cols": 132}});
    socket.stream.send(Message::text(control.to_string())).await.unwrap();
    socket.types("stty size\r").await;
    socket.expect("50 132\r\n").await;
    assert_eq!(scene.api.get(&scene.key, &path).await.json()["cols"], 132);
    socket.types("exit 7\r").await;
    assert_eq!(socket.event().await, json!({"exited": {"code": 7}}));
    assert_eq!(socket.close().await, (1000, "the program has ended".into()));
    let ended = scene.api.get(&scene.key, &path).await.json();
    assert_eq!((&ended["state"], &ended["exitCode"]), (&"exited".into(), &7.into()));
    let mut late = scene.attach(&path).await;
    assert_eq!(late.attached().await, 0);
    assert_eq!(late.event().await, json!({"exited": {"code": 7}}));
    assert!(String::from_utf8_lossy(&late.seen).contains("hello\r\n"));
    let id = &terminal["id"];
    assert_eq!(scene.audited("terminal_opened").await, [json!({"terminal": id, "command": []})]);
    eventually("its end is audited", async || scene.audited("terminal_closed").await.len() == 1).await;
    assert_eq!(scene.audited("terminal_closed").await, [json!({"terminal": id, "code": 7})]);
}

#[tokio::test]
async fn who_comes_back_with_an_offset_misses_nothing_and_sees_nothing_twice() {
    let scene = Scene::new().await;
    let path = scene.shell().await;
    let mut socket = scene.attach(&path).await;
    socket.attached().await;
    socket.expect(PROMPT).await;
    let begun = socket.at;
    socket.types("seq 1 60000\r").await;
    let mut all = Vec::new();
    // Broken again and again in the middle.
    while !String::from_utf8_lossy(&all).ends_with(&format!("60000\r\n{PROMPT}")) {
        let enough = socket.at + 70_000;
        while socket.at < enough && !String::from_utf8_lossy(&socket.seen).ends_with(&format!("60000\r\n{PROMPT}")) {
            if let Message::Binary(data) = socket.next().await.expect("it is open") {
                socket.take(&data);
            }
        }
        all.append(&mut socket.seen);
        let at = socket.at;
        drop(socket);
        socket = scene.attach(&format!("{path}?from={at}")).await;
        assert_eq!(socket.attached().await, at);
    }
    let numbers: String = (1..=60_000).map(|number| format!("{number}\r\n")).collect();
    assert!(all == format!("seq 1 60000\r\n{numbers}{PROMPT}").as_bytes(), "{} bytes", all.len());
    assert_eq!(socket.at, begun + all.len() as u64);
    let mut late = scene.attach(&format!("{path}?from=1")).await;
    let offset = late.attached().await;
    assert!(offset > 1 && offset < socket.at);
    assert_eq!(late.event().await, json!({"gap": {"from": 1, "to": offset}}));
}

#[tokio::test]
async fn a_flood_that_nobody_takes_waits_and_is_whole_when_somebody_comes() {
    let scene = Scene::new().await;
    let path = scene.shell().await;
    let mut first = scene.attach(&path).await;
    first.attached().await;
    first.expect(PROMPT).await;
    first.types("seq 1 300000\r").await;
    first.expect("seq").await;
    drop(first);
    let mut other = scene.attach(&scene.shell().await).await;
    other.attached().await;
    other.types("echo lively\r").await;
    other.expect("\r\nlively\r\n").await;
    let mut second = scene.attach(&path).await;
    let offset = second.attached().await;
    assert!(offset <= 128 * 1024, "{offset}");
    second.expect("300000\r\n").await;
    second.expect(PROMPT).await;
}

#[tokio::test]
async fn all_who_are_attached_see_everything_and_may_type() {
    let scene = Scene::new().await;
    let path = scene.shell().await;
    let (mut one, mut two) = (scene.attach(&path).await, scene.attach(&path).await);
    for socket in [&mut one, &mut two] {
        socket.attached().await;
        socket.expect(PROMPT).await;
    }
    one.types("echo from one\r").await;
    two.expect("\r\nfrom one\r\n").await;
    two.types("echo from two\r").await;
    one.expect("\r\nfrom two\r\n").await;
    let sent = scene.delete(&path).await;
    assert_eq!(sent.status, 204, "{sent:?}");
    for socket in [&mut one, &mut two] {
        assert_eq!(socket.event().await, json!({"exited": {"signal": 1}}));
        assert_eq!(socket.close().await.0, 1000);
    }
    // Once more.
    let again = scene.delete(&path).await;
    assert_eq!(again.status, 204, "{again:?}");
    eventually("its end is audited", async || scene.audited("terminal_closed").await.len() == 1).await;
    assert_eq!(scene.audited("terminal_closed").await[0]["signal"], 1);
}

#[tokio::test]
async fn the_end_of_the_session_ends_its_terminals_and_says_so() {
    let scene = Scene::new().await;
    let path = scene.shell().await;
    let mut socket = scene.attach(&path).await;
    socket.attached().await;
    let session = format!("/v1/sessions/{}", scene.id);
    let deleted = scene.delete(&session).await;
    assert_eq!(deleted.status, 200, "{deleted:?}");
    assert_eq!(socket.close().await, (1001, "the session has ended".into()));
    scene.api.get(&scene.key, &path).await.problem("wrong_state");
    scene.open(&json!({})).await.problem("wrong_state");
    let events = scene.api.get(&scene.key, &format!("{session}/audit?limit=1000")).await.json();
    let kinds: Vec<_> =
        events["items"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    let at = |kind: &str| kinds.iter().position(|known| *known == kind).unwrap();
    assert!(
        at("terminal_opened") < at("terminal_closed") && at("terminal_closed") < at("workload_exited"),
        "{kinds:?}"
    );
}

#[tokio::test]
async fn messages_that_are_none_end_the_socket_with_a_reason_and_not_the_terminal() {
    let scene = Scene::new().await;
    let path = scene.shell().await;
    for (message, code) in [
        (Message::text("garbage"), 1003),
        (Message::text(r#"{"resize": {"rows": 0, "cols": 80}}"#), 1003),
        (Message::text(r#"{"resize": {"rows": 1, "cols": 70000}}"#), 1003),
        (Message::text(r#"{"close": {}}"#), 1003),
        (Message::binary(vec![b'x'; 64 * 1024 + 1]), 1009),
        (Message::text("x".repeat(64 * 1024 + 1)), 1009),
    ] {
        let mut socket = scene.attach(&path).await;
        socket.attached().await;
        socket.stream.send(message).await.unwrap();
        let (found, reason) = socket.close().await;
        assert_eq!(found, code, "{reason}");
        assert!(!reason.is_empty());
    }
    // Pongs that nobody asked for, and pings.
    let mut socket = scene.attach(&path).await;
    socket.attached().await;
    for message in [
        Message::Pong(u64::MAX.to_be_bytes().to_vec().into()),
        Message::Pong(vec![1, 2, 3].into()),
        Message::Ping(vec![1].into()),
    ] {
        socket.stream.send(message).await.unwrap();
    }
    socket.types("echo still here\r").await;
    socket.expect("\r\nstill here\r\n").await;
}

#[tokio::test]
async fn every_fault_of_a_terminal_is_told_by_name() {
    let scene = Scene::new().await;
    let fields = async |body: Value| scene.open(&body).await.fields();
    assert_eq!(fields(json!({"command": ["no-such-program"]})).await, ["command[0]"]);
    let told = fields(json!({"command": [""], "env": {"1A": "x"}, "rows": 0, "cols": "w", "tty": true})).await;
    assert_eq!(told, ["cols", "tty", "command[0]", "env.1A", "rows"]);
    let path = scene.shell().await;
    let query = scene.api.get(&scene.key, &format!("{path}?from=0")).await;
    assert_eq!(query.fields(), ["from"]);
    for id in ["nonsense", "trm_", "%FF", "..%2f", "trm_01890a5d-ac96-774b-bcce-b302099a8057"] {
        let path = format!("{}/{id}", scene.path());
        scene.api.get(&scene.key, &path).await.problem("not_found");
        assert_eq!(scene.refused(&path, Some(&scene.key)).await, (404, "not_found".into()), "{id}");
    }
    for value in ["-1", "x", "", "1&from=2", "99999999"] {
        assert_eq!(scene.refused(&format!("{path}?from={value}"), Some(&scene.key)).await.0, 400, "{value}");
    }
    let mut broken = request(Method::GET, &path, Some(&scene.key), Body::empty());
    broken.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let answer = scene.api.send(broken).await;
    assert_eq!(answer.fields(), ["Connection"], "{answer:?}");
    for _ in 1..8 {
        scene.shell().await;
    }
    scene.open(&json!({})).await.problem("too_many_terminals");
    let sent = scene.delete(&path).await;
    assert_eq!(sent.status, 204, "{sent:?}");
    scene.shell().await;
}

#[tokio::test]
async fn who_may_not_is_refused_before_the_upgrade_and_a_revoked_key_behind_it() {
    let api = Builder::default()
        .settings(|settings| settings.heartbeat = std::time::Duration::from_millis(100))
        .start()
        .await;
    let key = api.owner().await;
    let id = api.running_session(&key, &["sleep 1h"]).await;
    let server = api.listen().await;
    let scene = Scene { api, key, id, server };
    let path = scene.shell().await;
    let stranger = scene.api.key(scene.api.other, Who::Owner, None).await;
    let viewer = scene.api.key(scene.api.org, Who::Viewer, None).await;
    assert_eq!(scene.refused(&path, None).await, (401, "unauthenticated".into()));
    assert_eq!(scene.refused(&path, Some(&stranger)).await, (404, "not_found".into()));
    assert_eq!(scene.refused(&path, Some(&viewer)).await, (403, "forbidden".into()));
    assert_eq!(scene.api.get(&viewer, &path).await.status, 200, "it may look at the object");
    let mut socket = scene.attach(&path).await;
    socket.attached().await;
    scene.api.engine.revoke_key(scene.api.org, scene.key.id, model::access::Subject::Operator).await.unwrap();
    assert_eq!(socket.close().await.0, 1008);
}

#[tokio::test]
async fn a_server_that_stops_says_so_on_its_sockets_and_waits_for_them() {
    let scene = Scene::new().await;
    let path = scene.shell().await;
    let mut socket = scene.attach(&path).await;
    socket.attached().await;
    scene.server.stop.cancel();
    assert_eq!(socket.close().await, (1001, "the server is shutting down".into()));
    drop(socket);
    within("the server's end", scene.server.task).await.unwrap();
}
