//! Requests for sessions with files beside them.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use futures::{StreamExt as _, stream};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Answer, Api, Key, program, request};

const LIMIT: usize = 1024 * 1024;

/// A part: what stands behind `form-data; `, and the content.
fn part(disposition: &str, content: &[u8]) -> Vec<u8> {
    let head = format!("--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n");
    [head.as_bytes(), content, b"\r\n"].concat()
}

fn asked(body: &Value) -> Vec<u8> {
    part("name=\"request\"", body.to_string().as_bytes())
}

fn file(path: &str, content: &[u8]) -> Vec<u8> {
    part(&format!("name=\"file\"; filename=\"{path}\""), content)
}

fn form(parts: &[Vec<u8>]) -> Vec<u8> {
    [&parts.concat()[..], b"--b--\r\n"].concat()
}

async fn send(api: &Api, key: &Key, body: impl Into<Body>, idempotency: Option<&str>) -> Answer {
    let mut asked = request(Method::POST, "/v1/sessions", Some(key), body.into());
    asked.headers_mut().insert("content-type", "multipart/form-data; boundary=b".parse().unwrap());
    if let Some(value) = idempotency {
        asked.headers_mut().insert("idempotency-key", value.parse().unwrap());
    }
    api.send(asked).await
}

fn small(script: &[&str]) -> Value {
    let mut body = program(script);
    body["limits"] = json!({ "diskBytes": LIMIT });
    body
}

#[tokio::test]
async fn files_beside_a_request_are_in_the_working_directory_and_audited() {
    let api = Api::start().await;
    let key = api.owner().await;
    // What looks like the end of the part and is not is content, too.
    let content = [b"\r\n--", &vec![b'x'; LIMIT / 2][..], b"\r\n--a\r\r\n-"].concat();
    let tool = part("name=\"executable\"; filename=\"bin/tool\"", b"#!");
    let parts = [asked(&small(&["cat in/a b.txt"])), file("in/a b.txt", &content), tool, file("empty", b"")];
    let body = form(&parts);
    // However it comes.
    for piece in [body.len(), 7000, 13] {
        let pieces: Vec<_> = body.chunks(piece).map(Bytes::copy_from_slice).collect();
        let body = Body::from_stream(stream::iter(pieces).map(Ok::<_, Infallible>));
        let made = send(&api, &key, body, None).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.json());
        let id = made.json()["id"].as_str().unwrap().to_owned();
        let result = api.get(&key, &format!("/v1/sessions/{id}/result?waitMs=20000")).await.json();
        assert_eq!(result["outcome"], "succeeded", "{result}");
        assert!(result["stdoutTail"].as_str().unwrap().ends_with("xx\r\n--a\r\r\n-"));
        let trail = api.get(&key, &format!("/v1/sessions/{id}/audit")).await.json();
        let written = trail["items"].as_array().unwrap().iter().filter(|event| event["type"] == "file_written");
        let written: Vec<_> = written.map(|event| event["data"]["path"].as_str().unwrap().to_owned()).collect();
        assert_eq!(written, ["in/a b.txt", "bin/tool", "empty"]);
    }
}

#[tokio::test]
async fn every_fault_of_a_form_is_told() {
    let api = Api::start().await;
    let key = api.owner().await;
    let honest = asked(&small(&["exit 0"]));
    let mut wrong = small(&["exit 0"]);
    wrong["language"] = "cobol".into();
    let many: Vec<_> = (0..257).map(|n| file(&format!("f{n}"), b"")).collect();
    for (parts, expected) in [
        (vec![file("a", b"x"), honest.clone()], vec!["request"]),
        (vec![], vec!["request"]),
        (vec![honest.clone(), honest.clone()], vec!["request"]),
        (vec![honest.clone(), part("name=\"other\"", b"x")], vec!["other"]),
        (vec![honest.clone(), part("name=\"file\"", b"x")], vec!["file[0]"]),
        (vec![honest.clone(), file("../a", b"x"), file("ok", b""), file("ok", b"")], vec!["file[0]", "file[2]"]),
        (vec![asked(&wrong), file("/etc/passwd", b"x")], vec!["language", "file[0]"]),
        ([vec![honest.clone()], many].concat(), vec!["file"]),
    ] {
        let refused = send(&api, &key, form(&parts), None).await;
        assert_eq!(
            (refused.status, refused.fields()),
            (StatusCode::BAD_REQUEST, expected.into_iter().map(str::to_owned).collect())
        );
    }
    let unreadable = send(&api, &key, form(&[part("name=\"request\"", b"{")]), None).await;
    assert_eq!(unreadable.json()["code"], "malformed_json");
    // Cut short, or no form at all.
    let whole = form(&[honest.clone(), file("a", b"x")]);
    for body in [&whole[..whole.len() - 9], b"", b"--", b"no form"] {
        assert_eq!(send(&api, &key, body.to_vec(), None).await.fields(), ["(body)"]);
    }
    // A header without an end stays out of the memory.
    let endless = stream::repeat(Bytes::from(vec![b'h'; 65_536])).map(Ok::<_, Infallible>);
    let head = [&honest[..], b"--b\r\nX-Long: "].concat();
    let body = stream::once(async move { Ok(Bytes::from(head)) }).chain(endless);
    let refused = send(&api, &key, Body::from_stream(body), None).await;
    assert_eq!(refused.fields(), ["(body)"]);
    assert_eq!(api.get(&key, "/v1/sessions").await.json()["items"], json!([]));
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_all_of_it_has_come() {
    let api = Api::start().await;
    let key = api.owner().await;
    let fits = form(&[asked(&small(&["exit 0"])), file("a", &vec![0; LIMIT])]);
    assert_eq!(send(&api, &key, fits, None).await.status, StatusCode::CREATED);
    let head = [asked(&small(&["exit 0"])), part("name=\"file\"; filename=\"a\"", b"")].concat();
    let endless = stream::repeat(Bytes::from(vec![0; 65_536])).map(Ok::<_, Infallible>);
    let body = stream::once(async move { Ok(Bytes::from(head)) }).chain(endless);
    let refused = send(&api, &key, Body::from_stream(body), None).await;
    assert_eq!(
        (refused.status, refused.json()["code"].as_str()),
        (StatusCode::PAYLOAD_TOO_LARGE, Some("disk_exceeded"))
    );
    let large = part("name=\"request\"", &vec![b' '; api.settings.body_limit + 1]);
    let refused = send(&api, &key, form(&[large]), None).await;
    assert_eq!(refused.json()["code"], "body_too_large");
}

#[tokio::test]
async fn a_key_belongs_to_the_request_with_its_files() {
    let api = Api::start().await;
    let key = api.owner().await;
    let with = |content: &[u8]| form(&[asked(&small(&["exit 0"])), file("a", content)]);
    let first = send(&api, &key, with(b"one"), Some("k")).await;
    let again = send(&api, &key, with(b"one"), Some("k")).await;
    assert_eq!(first.json()["id"], again.json()["id"]);
    let other = send(&api, &key, with(b"two"), Some("k")).await;
    assert_eq!(other.json()["code"], "idempotency_conflict");
}
