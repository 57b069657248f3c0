//! Webhooks of a real server to real receivers: what arrives, what is checked, and where nothing arrives.

mod receiver;

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use self::receiver::Receiver;
use crate::{server::Server, world::World};

/// Calls the server's API.
async fn call(server: &Server, method: reqwest::Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let mut request = reqwest::Client::new().request(method, format!("{}{path}", server.url()));
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// A session that ends at once and tells `url`; gives its id.
async fn session(server: &Server, url: &str) -> String {
    let body = json!({"code": "# sim: exit 0", "webhookUrl": url, "labels": {"of": "a test"}});
    let (status, session) = call(server, reqwest::Method::POST, "/v1/sessions", Some(body)).await;
    assert_eq!(status, 201, "{url}: {session}");
    session["id"].as_str().unwrap().to_owned()
}

/// The session's delivery, once it was tried so often.
async fn tried(server: &Server, session: &str, times: u64) -> Value {
    let path = format!("/v1/webhooks/deliveries?session={session}");
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let (_, page) = call(server, reqwest::Method::GET, &path, None).await;
        if page["items"][0]["attempts"].as_u64().is_some_and(|attempts| attempts >= times) {
            return page["items"][0].clone();
        }
        assert!(Instant::now() < deadline, "not tried: {page}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn permit(receiver: &Receiver) -> String {
    format!("--webhook-permit=127.0.0.1/32:{}", receiver.port)
}

/// The Python of the page about webhooks.
fn documented() -> String {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/webhooks.md")).unwrap();
    let code = page.split("```python\n").nth(1).unwrap().split_once("```").unwrap().0;
    code.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_arrives_and_the_documented_example_verifies_it() {
    let receiver = Receiver::start(|_| "HTTP/1.1 204 No Content\r\n\r\n".into()).await;
    let server = Server::start("simulator", &[&permit(&receiver)]).await;
    let (_, made) = call(&server, reqwest::Method::POST, "/v1/webhooks/secret", None).await;
    let id = session(&server, &format!("http://localhost:{}/hooks/x?y=%20z", receiver.port)).await;
    let delivery = tried(&server, &id, 1).await;
    assert_eq!(delivery["status"], "delivered", "{delivery}");
    let came = receiver.came().remove(0);
    assert_eq!(came.line, "POST /hooks/x?y=%20z HTTP/1.1");
    assert_eq!(came.headers["content-type"], "application/json");
    assert_eq!(came.headers["host"], format!("localhost:{}", receiver.port));
    let body: Value = serde_json::from_str(&came.body).unwrap();
    assert_eq!((&body["type"], &body["data"]["sessionId"]), (&json!("session.finished"), &json!(id)));
    assert_eq!((&body["data"]["outcome"], &body["data"]["labels"]["of"]), (&json!("succeeded"), &json!("a test")));
    assert!(came.body.len() < 2048, "{}", came.body);

    let check = "
import json, sys
secret, headers, body = json.load(sys.stdin)
assert verify(secret, headers, body.encode()) == headers['webhook-id']
for wrong in [(secret, headers, b'{}'), ('whsec_AAAA', headers, body.encode()), (secret, headers | {'webhook-timestamp': '1'}, body.encode())]:
    try:
        verify(*wrong)
    except ValueError:
        continue
    sys.exit('it verifies what is wrong')
print('verified')
";
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input.json");
    fs::write(&input, json!([made["secret"], came.headers, came.body]).to_string()).unwrap();
    let output = Command::new("python3")
        .args(["-c", &format!("{}{check}", documented())])
        .stdin(fs::File::open(&input).unwrap())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "verified\n", "{}", String::from_utf8_lossy(&output.stderr));
    server.audit_verifies().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_receiver_answers_is_read_within_bounds_and_redirects_lead_nowhere() {
    let trap = Receiver::start(|_| "HTTP/1.1 200 OK\r\n\r\n".into()).await;
    let trapped = trap.port;
    let receiver = Receiver::start(move |path| match path {
        "/redirect" => format!("HTTP/1.1 307 X\r\nlocation: http://127.0.0.1:{trapped}/\r\ncontent-length: 0\r\n\r\n"),
        "/metadata" => "HTTP/1.1 302 X\r\nlocation: http://169.254.169.254/latest/\r\ncontent-length: 0\r\n\r\n".into(),
        "/flood" => format!("HTTP/1.1 500 X\r\ncontent-length: 99999999\r\n\r\n{}", "\u{1}flood".repeat(200_000)),
        "/head" => format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)),
        "/garbage" => "SSH-2.0-OpenSSH\r\n".into(),
        _ => String::new(),
    })
    .await;
    let permits = format!("{},127.0.0.1/32:{trapped}", permit(&receiver));
    let server = Server::start("simulator", &[&permits]).await;
    for (path, status, told) in [
        ("/redirect", json!(307), "redirects are not followed"),
        ("/metadata", json!(302), "redirects are not followed"),
        ("/flood", json!(500), "it answered 500"),
        ("/head", Value::Null, "no answer that is HTTP"),
        ("/garbage", Value::Null, "no answer that is HTTP"),
        ("/silence", Value::Null, "no answer that is HTTP"),
    ] {
        let id = session(&server, &format!("http://127.0.0.1:{}{path}", receiver.port)).await;
        let attempt = tried(&server, &id, 1).await["lastAttempt"].clone();
        assert_eq!(attempt["status"], status, "{path}: {attempt}");
        assert!(attempt["error"].as_str().unwrap().contains(told), "{path}: {attempt}");
        let excerpt = attempt["excerpt"].as_str().unwrap_or_default();
        assert!(excerpt.chars().count() <= 512 && !excerpt.contains('\u{1}'), "{path}: {attempt}");
    }
    assert!(trap.came().is_empty(), "a redirect was followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_lead_inside_are_refused_when_they_are_connected_to() {
    let world = World::start().await;
    let receiver = Receiver::start(|_| "HTTP/1.1 200 OK\r\n\r\n".into()).await;
    let resolver = format!("--egress-resolver={}", world.dns);
    let server = Server::start("simulator", &[&resolver]).await;
    let port = receiver.port;
    for (host, told) in [
        ("meta.test", "metadata address"),
        ("private.test", "private address"),
        // Every address of this host is its own.
        ("allowed.test", "address"),
        ("nowhere.invalid", "cannot be resolved"),
    ] {
        let id = session(&server, &format!("http://{host}:{port}/")).await;
        let attempt = tried(&server, &id, 1).await["lastAttempt"].clone();
        let error = attempt["error"].as_str().unwrap();
        assert!(error.contains(told) && attempt["status"].is_null(), "{host}: {attempt}");
    }
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://0177.0.0.1:{port}/"),
        format!("http://0x7f.1:{port}/"),
        "http://169.254.169.254/".to_owned(),
        "http://10.0.0.1/".to_owned(),
    ] {
        let body = json!({"code": "1", "webhookUrl": url});
        let (status, problem) = call(&server, reqwest::Method::POST, "/v1/sessions", Some(body)).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (400, &json!("webhookUrl")), "{url}: {problem}");
    }
    assert!(receiver.came().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_survives_the_death_of_its_server_and_certificates_are_checked() {
    let world = World::start().await;
    let receiver = Receiver::start(|_| "HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n".into()).await;
    let permits = format!("{},{}/32", permit(&receiver), world.http.ip());
    let resolver = format!("--egress-resolver={}", world.dns);
    let mut server = Server::start("simulator", &[&permits, &resolver]).await;
    // The world's certificate is signed by nobody whom this host knows.
    let id = session(&server, &format!("https://allowed.test:{}/", world.https.port())).await;
    let attempt = tried(&server, &id, 1).await["lastAttempt"].clone();
    assert!(attempt["error"].as_str().unwrap().starts_with("no TLS with it"), "{attempt}");
    assert!(world.requests().is_empty());

    let id = session(&server, &format!("http://127.0.0.1:{}/", receiver.port)).await;
    tried(&server, &id, 1).await;
    server.restart().await;
    let delivery = tried(&server, &id, 2).await;
    let ids: Vec<_> = receiver.came().iter().map(|came| came.headers["webhook-id"].clone()).collect();
    assert!(ids.len() >= 2 && ids.iter().all(|id| json!(id) == delivery["messageId"]), "{ids:?}");
}
