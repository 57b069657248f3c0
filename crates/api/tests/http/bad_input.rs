//! Requests that are wrong, each a clear problem.

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request};
use wire::Role;

use crate::harness::{Answer, Api, Builder, Key, request};

/// What is sent, the code of the answer, and the fields that it must name.
struct Case(&'static str, Vec<u8>, &'static str, &'static [&'static str]);

fn cases() -> Vec<Case> {
    let text = |name, body: &str, code, fields| Case(name, body.as_bytes().to_vec(), code, fields);
    let source = r#"{"type":"git","repo":"https://example.org/r","ref":"main","entrypoint":"a.py"}"#;
    vec![
        text("nothing", "", "malformed_json", &[]),
        text("no JSON", "code=1", "malformed_json", &[]),
        text("half of it", r#"{"code": "1""#, "malformed_json", &[]),
        text("two documents", r#"{"code":"1"}{"code":"2"}"#, "malformed_json", &[]),
        text("a duplicate key", r#"{"code":"1","code":"2"}"#, "malformed_json", &[]),
        text("a duplicate key deeper", r#"{"code":"1","limits":{"pids":64,"pids":128}}"#, "malformed_json", &[]),
        text("a lone surrogate", r#"{"code":"\ud800"}"#, "malformed_json", &[]),
        text("NaN", r#"{"code":"1","limits":{"cpu":NaN}}"#, "malformed_json", &[]),
        text("a number without end", r#"{"code":"1","limits":{"cpu":1e999}}"#, "malformed_json", &[]),
        Case("bytes that are not UTF-8", b"{\"code\":\"\xff\xfe\"}".to_vec(), "malformed_json", &[]),
        Case("UTF-16", "{\"code\":\"1\"}".encode_utf16().flat_map(u16::to_le_bytes).collect(), "malformed_json", &[]),
        Case("deep arrays", "[".repeat(100_000).into_bytes(), "malformed_json", &[]),
        Case("deep objects", r#"{"a":"#.repeat(100_000).into_bytes(), "malformed_json", &[]),
        Case("deep and whole", ["[".repeat(100_000), "]".repeat(100_000)].concat().into_bytes(), "malformed_json", &[]),
        text("an array", "[]", "invalid_request", &["(body)"]),
        text("null", "null", "invalid_request", &["(body)"]),
        text("no code", "{}", "invalid_request", &["code"]),
        text("empty code", r#"{"code":" "}"#, "invalid_request", &["code"]),
        text("NUL in code", r#"{"code":"a\u0000b"}"#, "invalid_request", &["code"]),
        text("a wrong type", r#"{"code":5}"#, "invalid_request", &["code"]),
        text("an unknown field", r#"{"code":"1","langauge":"node"}"#, "invalid_request", &["langauge"]),
        text("an unknown word", r#"{"code":"1","language":"ruby"}"#, "invalid_request", &["language"]),
        text("prototype games", r#"{"code":"1","__proto__":{}}"#, "invalid_request", &["__proto__"]),
        Case(
            "two sources",
            format!(r#"{{"code":"1","source":{source}}}"#).into_bytes(),
            "invalid_request",
            &["source"],
        ),
        text(
            "absurd limits",
            r#"{"code":"1","limits":{"cpu":-1,"memoryBytes":18446744073709551615,"pids":0,"wallClockMs":1e3,"diskBytes":-5}}"#,
            "invalid_request",
            &["limits.cpu", "limits.memoryBytes", "limits.pids", "limits.wallClockMs", "limits.diskBytes"],
        ),
        text("a backend that is not there", r#"{"code":"1","backend":"../x"}"#, "invalid_request", &["backend"]),
        text(
            "names that are not",
            r#"{"code":"1","env":{"A=B":"1","ENCLAVE_X":"1"}}"#,
            "invalid_request",
            &["env.A=B", "env.ENCLAVE_X"],
        ),
        Case(
            "more code than there may be",
            format!(r#"{{"code":"{}"}}"#, "x".repeat(1024 * 1024 + 1)).into_bytes(),
            "invalid_request",
            &["code"],
        ),
        Case("more than a body may be", vec![b' '; 2 * 1024 * 1024 + 1], "body_too_large", &[]),
        text(
            "everything at once",
            r#"{"code":1,"surplus":1,"limits":{"ram":1},"args":[1,2],"egress":{"mode":"open"}}"#,
            "invalid_request",
            &["code", "surplus", "limits.ram", "args[0]", "args[1]", "egress.mode"],
        ),
    ]
}

#[tokio::test]
async fn every_bad_body_is_a_clear_problem() {
    let api = Api::start().await;
    let key = api.owner().await;
    for Case(name, body, code, fields) in cases() {
        let answer = api.post(&key, body).await;
        answer.problem(code);
        let named = answer.fields();
        for field in fields {
            assert!(named.iter().any(|named| named == field), "{name}: {field} is not in {named:?}");
        }
        assert!(answer.bytes.len() < 64 * 1024, "{name}: {} bytes", answer.bytes.len());
    }
    assert_eq!(api.get(&key, "/v1/sessions").await.json()["items"], serde_json::json!([]));
}

#[tokio::test]
async fn a_body_made_of_faults_is_answered_quickly_and_shortly() {
    let api = Api::start().await;
    let key = api.owner().await;
    let started = std::time::Instant::now();
    let args = format!(r#"{{"code":"1","args":[{}0]}}"#, "\"\\u0000\",0,".repeat(150_000));
    let fields = format!("{{{}\"code\":\"1\"}}", (0..100_000).map(|n| format!("\"f{n}\":0,")).collect::<String>());
    let long = format!(r#"{{"code":"1","{}":0}}"#, "n".repeat(1_900_000));
    for body in [args, fields, long] {
        let answer = api.post(&key, body).await;
        assert_eq!(answer.status, 400);
        assert!(answer.bytes.len() < 64 * 1024, "{} bytes", answer.bytes.len());
        assert!(answer.fields().len() <= 100);
    }
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}

async fn post_as(api: &Api, key: &Key, kind: Option<&str>) -> Answer {
    let mut asked = request(Method::POST, "/v1/sessions", Some(key), r#"{"code":"1"}"#.into());
    asked.headers_mut().remove("content-type");
    if let Some(kind) = kind {
        asked.headers_mut().insert("content-type", kind.parse().unwrap());
    }
    api.send(asked).await
}

#[tokio::test]
async fn a_body_must_say_that_it_is_json() {
    let api = Api::start().await;
    let key = api.owner().await;
    assert_eq!(post_as(&api, &key, Some("application/json; charset=utf-8")).await.status, 201);
    for kind in
        [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/json; charset=latin1")]
    {
        let answer = post_as(&api, &key, kind).await;
        assert_eq!(answer.status, 415, "{kind:?}");
        answer.problem("unsupported_media_type");
    }
    let mut packed = request(Method::POST, "/v1/sessions", Some(&key), Body::from("x"));
    packed.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
    assert_eq!(api.send(packed).await.status, 415);
}

#[tokio::test]
async fn a_body_without_a_length_is_cut_off_at_the_limit() {
    let api = Api::start().await;
    let key = api.owner().await;
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&sent);
    let endless = futures::stream::repeat_with(move || {
        counted.fetch_add(64 * 1024, std::sync::atomic::Ordering::Relaxed);
        Ok::<_, std::convert::Infallible>(Bytes::from(vec![b' '; 64 * 1024]))
    });
    let answer = api.post(&key, Body::from_stream(endless)).await;
    assert_eq!(answer.status, 413);
    answer.problem("body_too_large");
    assert!(sent.load(std::sync::atomic::Ordering::Relaxed) <= 3 * 1024 * 1024);
}

#[tokio::test]
async fn all_bodies_together_are_bounded_too() {
    let api = Builder::default().settings(|settings| settings.body_budget = 512 * 1024).start().await;
    let key = api.owner().await;
    let filler = |kib: usize| format!(r#"{{"code":"1"}}{}"#, " ".repeat(kib * 1024));
    let answer = api.post(&key, filler(600)).await;
    assert_eq!(answer.status, 503);
    answer.problem("unavailable");
    assert_eq!(answer.header("retry-after"), "1");
    for _ in 0..5 {
        assert_eq!(api.post(&key, filler(400)).await.status, 201, "the budget is given back");
    }
}

#[tokio::test]
async fn idempotency_keys_have_a_form_and_are_told_of_with_everything_else() {
    let api = Api::start().await;
    let key = api.owner().await;
    let post = async |values: &[&[u8]], body: &'static str| {
        let mut asked = request(Method::POST, "/v1/sessions", Some(&key), body.into());
        for value in values {
            asked.headers_mut().append("idempotency-key", http::HeaderValue::from_bytes(value).unwrap());
        }
        api.send(asked).await
    };
    let long = [b'k'; 256];
    for values in [&[&b""[..]][..], &[b"a b"], &[b"\xc3\xa9"], &[&long], &[b"a", b"b"]] {
        let answer = post(values, r#"{"code":1}"#).await;
        answer.problem("invalid_request");
        assert_eq!(answer.fields(), ["Idempotency-Key", "code"], "{values:?}");
    }
    assert_eq!(post(&[&long[..255]], r#"{"code":"1"}"#).await.status, 201);
}

#[tokio::test]
async fn bad_parameters_are_named_all_at_once() {
    let api = Api::start().await;
    let key = api.owner().await;
    let id = api.session(&key, &["sleep 1h"]).await;
    for (path, fields) in [
        ("/v1/sessions?limit=0&phase=gone&label=x&page=2", &["limit", "phase", "label", "page"][..]),
        ("/v1/sessions?limit=101", &["limit"]),
        ("/v1/sessions?limit=1&limit=2", &["limit"]),
        ("/v1/sessions?cursor=", &["cursor"]),
        ("/v1/sessions?cursor=nonsense", &["cursor"]),
        ("/v1/sessions?cursor=%00%ff", &["cursor"]),
        ("/v1/sessions?Limit=1", &["Limit"]),
        ("/v1/backends?verbose", &["verbose"]),
        ("/v1/sessions/ID?fields=id", &["fields"]),
        ("/v1/sessions/ID/result?waitMs=60001", &["waitMs"]),
        ("/v1/sessions/ID/result?waitMs=-1", &["waitMs"]),
        ("/v1/sessions/ID/result?waitMs=1s", &["waitMs"]),
        ("/v1/sessions/ID/result?wait=1", &["wait"]),
        ("/v1/sessions/ID/audit?limit=1001&cursor=x", &["cursor", "limit"]),
        ("/v1/sessions/ID/audit?cursor=18446744073709551615", &["cursor"]),
        ("/v1/sessions/ID/stream?lastEventId=first", &["lastEventId"]),
        ("/v1/sessions/ID/stream?lastEventId=9007199254740992", &["lastEventId"]),
    ] {
        let answer = api.get(&key, &path.replace("ID", &id)).await;
        assert_eq!(answer.status, 400, "{path}");
        answer.problem("invalid_request");
        assert_eq!(answer.fields(), fields, "{path}");
    }
}

#[tokio::test]
async fn parameters_are_judged_the_same_whether_or_not_the_session_exists() {
    let api = Api::start().await;
    let key = api.owner().await;
    let id = api.session(&key, &["sleep 1h"]).await;
    for id in [id.as_str(), "ses_01890a5d-ac96-774b-bcce-b302099a8057"] {
        assert_eq!(api.get(&key, &format!("/v1/sessions/{id}/result?waitMs=x")).await.status, 400);
    }
}

#[tokio::test]
async fn the_cursor_of_another_org_is_none() {
    let api = Api::start().await;
    let key = api.owner().await;
    let stranger = api.key(api.other, Role::Owner, None).await;
    for key in [&key, &stranger] {
        for _ in 0..3 {
            api.session(key, &["sleep 1h"]).await;
        }
    }
    let page = api.get(&stranger, "/v1/sessions?limit=1").await.json();
    let cursor = page["nextCursor"].as_str().unwrap();
    assert_eq!(api.get(&stranger, &format!("/v1/sessions?cursor={cursor}")).await.status, 200);
    let answer = api.get(&key, &format!("/v1/sessions?cursor={cursor}")).await;
    answer.problem("invalid_request");
    assert_eq!(answer.fields(), ["cursor"]);
}

#[tokio::test]
async fn a_body_where_none_belongs_is_ignored() {
    let api = Api::start().await;
    let key = api.owner().await;
    let asked: Request<Body> = request(Method::GET, "/v1/sessions", Some(&key), Body::from(vec![0; 1 << 20]));
    assert_eq!(api.send(asked).await.status, 200);
}
