//! Files that sessions left.

use axum::body::Body;
use engine::{Depot, Keep};
use http::Method;
use serde_json::json;
use std::time::Duration;

use crate::harness::{Answer, Api, Builder, Key, eventually, request};

/// A place to keep artifacts in.
pub(crate) fn keep(folder: &tempfile::TempDir) -> Keep {
    let depot = Depot::open(folder.path().join("artifacts")).unwrap();
    Keep { depot, age: Duration::from_hours(1), org_bytes: 1 << 30 }
}

async fn start(folder: &tempfile::TempDir) -> Api {
    let mut builder = Builder::default();
    builder.config.artifacts = Some(keep(folder));
    builder.start().await
}

async fn ended(api: &Api, key: &Key, body: serde_json::Value) -> String {
    let id = api.post(key, body.to_string()).await.json()["id"].as_str().unwrap().to_owned();
    eventually("torn down", async || api.get(key, &format!("/v1/sessions/{id}")).await.json()["phase"] == "torn_down")
        .await;
    id
}

/// A session that has ended and left a file.
pub(crate) async fn left(api: &Api, key: &Key, path: &str) -> String {
    ended(api, key, json!({"code": format!("# sim: write {path} x"), "artifacts": ["**"]})).await
}

async fn get(api: &Api, key: &Key, path: &str, method: Method, headers: &[(&'static str, &str)]) -> Answer {
    let mut asked = request(method, path, Some(key), Body::empty());
    for (name, value) in headers {
        asked.headers_mut().insert(*name, value.parse().unwrap());
    }
    api.send(asked).await
}

#[tokio::test]
async fn artifacts_are_served_with_ranges_and_tags_when_the_sandbox_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let api = start(&folder).await;
    let key = api.owner().await;
    let code = "# sim: write out/a.txt hello\\n\n# sim: write out/deep/b.bin \\x00\\xff\n# sim: write c.log no";
    let id = ended(&api, &key, json!({"code": code, "artifacts": ["out/**"]})).await;
    // Computed with sha256sum.
    let hello = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    let listed = api.get(&key, &format!("/v1/sessions/{id}/artifacts")).await.json();
    let result = api.get(&key, &format!("/v1/sessions/{id}/result")).await.json();
    assert_eq!(listed["items"], result["artifacts"]);
    assert_eq!(listed["items"][0], json!({"path": "out/a.txt", "size": 6, "sha256": hello}));
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);

    let at = format!("/v1/sessions/{id}/artifacts/out/a.txt");
    let etag = format!("\"{hello}\"");
    let whole = get(&api, &key, &at, Method::GET, &[]).await;
    assert_eq!((whole.status.as_u16(), whole.bytes.as_slice()), (200, b"hello\n".as_slice()));
    for (header, value) in [
        ("etag", etag.as_str()),
        ("content-length", "6"),
        ("content-type", "application/octet-stream"),
        ("content-disposition", "attachment"),
        ("cache-control", "private, no-cache"),
        ("accept-ranges", "bytes"),
    ] {
        assert_eq!(whole.header(header), value);
    }
    let head = get(&api, &key, &at, Method::HEAD, &[]).await;
    assert_eq!((head.status.as_u16(), head.header("content-length"), head.bytes.len()), (200, "6", 0));
    let part = get(&api, &key, &at, Method::GET, &[("range", "bytes=1-2"), ("if-range", &etag)]).await;
    assert_eq!(
        (part.status.as_u16(), part.bytes.as_slice(), part.header("content-range")),
        (206, b"el".as_slice(), "bytes 1-2/6")
    );
    let other = get(&api, &key, &at, Method::GET, &[("range", "bytes=1-2"), ("if-range", "\"x\"")]).await;
    assert_eq!(other.status, 200);
    get(&api, &key, &at, Method::GET, &[("range", "bytes=6-")]).await.problem("range_not_satisfiable");
    for tag in [etag.as_str(), "*", &format!("\"x\", W/{etag}")] {
        let again = get(&api, &key, &at, Method::GET, &[("if-none-match", tag)]).await;
        assert_eq!((again.status.as_u16(), again.bytes.len(), again.header("etag")), (304, 0, etag.as_str()));
    }
    assert_eq!(get(&api, &key, &at, Method::GET, &[("if-none-match", "\"x\"")]).await.status, 200);
    for path in ["c.log", "out", "out/deep", "x", "../x", "%2e%2e/x"] {
        get(&api, &key, &format!("/v1/sessions/{id}/artifacts/{path}"), Method::GET, &[]).await.problem("not_found");
    }
    let trail = api.get(&key, &format!("/v1/sessions/{id}/audit")).await.json();
    let kinds: Vec<_> =
        trail["items"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
    let end = ["workload_exited", "result_collected", "artifact_collected", "artifact_collected", "session_torn_down"];
    assert_eq!(kinds[kinds.len() - 5..], end);
}

#[tokio::test]
async fn a_session_that_left_nothing_has_no_artifacts_and_another_orgs_has_none_to_be_told() {
    let folder = tempfile::tempdir().unwrap();
    let api = start(&folder).await;
    let (key, stranger) = (api.owner().await, api.key(api.other, wire::Role::Owner, None).await);
    let id = ended(&api, &key, json!({"code": "# sim: write a x", "artifacts": ["b"]})).await;
    assert_eq!(api.get(&key, &format!("/v1/sessions/{id}/artifacts")).await.json(), json!({"items": []}));
    let kept = ended(&api, &key, json!({"code": "# sim: write a x", "artifacts": ["a"]})).await;
    for path in ["artifacts", "artifacts/a"] {
        api.get(&stranger, &format!("/v1/sessions/{kept}/{path}")).await.problem("not_found");
    }
}

#[tokio::test]
async fn globs_that_are_none_are_refused_and_so_are_all_where_nothing_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let api = start(&folder).await;
    let key = api.owner().await;
    let answer = api.post(&key, json!({"code": "1", "artifacts": ["../x", "[a]", "fine"]}).to_string()).await;
    answer.problem("invalid_request");
    assert_eq!(answer.fields(), ["artifacts[0]", "artifacts[1]"]);
    let without = Api::start().await;
    let key = without.owner().await;
    without.post(&key, json!({"code": "1", "artifacts": ["x"]}).to_string()).await.problem("not_supported");
}
