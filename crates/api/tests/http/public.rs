//! What needs no identity, and what every answer has.

use axum::body::Body;
use backend::simulator::Step;
use http::Method;

use crate::harness::{Api, Builder, eventually, request};

#[tokio::test]
async fn health_readiness_document_and_page_need_no_identity() {
    let api = Api::start().await;
    let get = async |path: &str| api.send(request(Method::GET, path, None, Body::empty())).await;

    let health = get("/healthz").await;
    assert_eq!((health.status.as_u16(), &health.json()["status"]), (200, &"ok".into()));

    let ready = get("/readyz").await.json();
    assert_eq!(ready["status"], "ok");
    assert_eq!(ready["backends"][0]["name"], "simulator");
    assert_eq!(ready["backends"][0]["isolation"], "simulated");
    assert_eq!(ready["backends"][0]["reachable"], true);

    let document = get("/openapi.json").await;
    assert_eq!(document.bytes, api::openapi_json().into_bytes());
    assert_eq!(document.header("content-type"), "application/json");

    let page = get("/docs").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
}

#[tokio::test]
async fn a_server_whose_backend_does_not_answer_is_not_ready() {
    let api = Api::start().await;
    api.failures.fail_next(Step::List, 1000);
    let ready = api.send(request(Method::GET, "/readyz", None, Body::empty())).await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["status"], "unavailable");
    assert_eq!(ready.json()["backends"][0]["reachable"], false);
    api.failures.clear();
    eventually("ready again", async || {
        api.send(request(Method::GET, "/readyz", None, Body::empty())).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn a_server_that_drains_is_not_ready_and_takes_no_sessions() {
    let api = Api::start().await;
    let key = api.owner().await;
    assert_eq!(api.send(request(Method::GET, "/readyz", None, Body::empty())).await.status, 200);
    let id = api.session(&key, &["sleep 1h"]).await;
    let engine = api.engine.clone();
    let draining = tokio::spawn(async move { engine.shutdown(std::time::Duration::from_mins(10)).await });
    eventually("draining", async || api.engine.is_draining()).await;
    assert_eq!(api.send(request(Method::GET, "/readyz", None, Body::empty())).await.status, 503);
    let refused = api.post(&key, r#"{"code": "1"}"#).await;
    assert_eq!(refused.status, 503);
    refused.problem("unavailable");
    api.send(request(Method::DELETE, &format!("/v1/sessions/{id}"), Some(&key), Body::empty())).await;
    draining.await.unwrap().unwrap();
}

#[tokio::test]
async fn every_answer_has_an_id_of_ours_and_the_security_headers() {
    let api = Api::start().await;
    let key = api.owner().await;
    let mut seen = std::collections::BTreeSet::new();
    for (method, path, status) in [
        (Method::GET, "/healthz", 200),
        (Method::GET, "/v1/sessions", 200),
        (Method::GET, "/v1/sessions/nonsense", 404),
        (Method::GET, "/nowhere", 404),
        (Method::PATCH, "/v1/sessions", 405),
        (Method::GET, "/v1/sessions?page=1", 400),
    ] {
        let mut asked = request(method, path, Some(&key), Body::empty());
        asked.headers_mut().insert("x-request-id", "chosen-by-the-caller".parse().unwrap());
        let answer = api.send(asked).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        let id = answer.header("x-request-id").to_owned();
        assert!(uuid::Uuid::try_parse(&id).is_ok(), "{id}");
        assert!(seen.insert(id), "an id came twice");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert!(answer.header("content-security-policy").starts_with("default-src 'none'"));
        assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control-")));
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let api = Api::start().await;
    for path in [
        "/",
        "/v1",
        "/v2/sessions",
        "/v1/sessions/",
        "/v1/sessions/a/b/c",
        "/docs/",
        "/%2e%2e/etc/passwd",
        "/healthz/x",
    ] {
        let answer = api.send(request(Method::GET, path, None, Body::empty())).await;
        assert_eq!(answer.status, 404, "{path}");
        answer.problem("not_found");
    }
    for (method, path, allow) in [
        (Method::PUT, "/v1/sessions", "GET,HEAD,POST"),
        (Method::POST, "/healthz", "GET,HEAD"),
        (Method::OPTIONS, "/v1/sessions", "GET,HEAD,POST"),
        (Method::TRACE, "/v1/sessions/x", "GET,HEAD,DELETE"),
    ] {
        let answer = api.send(request(method, path, None, Body::empty())).await;
        assert_eq!(answer.status, 405, "{path}");
        answer.problem("method_not_allowed");
        let mut named: Vec<_> = answer.header("allow").split(',').collect();
        let mut expected: Vec<_> = allow.split(',').collect();
        named.sort_unstable();
        expected.sort_unstable();
        assert_eq!(named, expected, "{path}");
    }
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let api = Builder::dev().start().await;
    for path in ["/healthz", "/v1/sessions", "/openapi.json"] {
        let mut asked = request(Method::HEAD, path, None, Body::empty());
        asked.headers_mut().insert("host", "localhost".parse().unwrap());
        let answer = api.send(asked).await;
        assert_eq!((answer.status.as_u16(), answer.bytes.len()), (200, 0), "{path}");
    }
}
