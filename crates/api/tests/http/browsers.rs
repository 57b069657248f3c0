//! Web pages and a server that asks nobody who they are.

use axum::body::Body;
use http::Method;

use crate::harness::{Api, Builder, request};

async fn status(api: &Api, method: Method, path: &str, headers: &[(&'static str, &str)]) -> u16 {
    let mut asked = request(method, path, None, r#"{"code": "1"}"#.into());
    for (name, value) in headers {
        asked.headers_mut().append(*name, value.parse().unwrap());
    }
    let answer = api.send(asked).await;
    if answer.status == 403 {
        answer.problem("forbidden");
    }
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    answer.status.as_u16()
}

#[tokio::test]
async fn a_page_under_a_name_that_was_rebound_to_loopback_reaches_nothing() {
    let api = Builder::dev().start().await;
    for path in ["/v1/sessions", "/v1/backends", "/healthz", "/docs", "/openapi.json", "/nowhere"] {
        assert_eq!(status(&api, Method::GET, path, &[("host", "rebound.example:8088")]).await, 403, "{path}");
        assert_eq!(status(&api, Method::GET, path, &[]).await, 403, "{path} without a host");
    }
    assert_eq!(status(&api, Method::GET, "/v1/sessions", &[("host", "127.0.0.1:8088")]).await, 200);
    assert_eq!(status(&api, Method::GET, "/v1/sessions", &[("host", "[::1]:8088")]).await, 200);
}

#[tokio::test]
async fn a_page_of_another_origin_creates_no_session() {
    let api = Builder::dev().start().await;
    let host = ("host", "localhost:8088");
    for page in [
        ("origin", "https://evil.example"),
        ("origin", "http://localhost:3000"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        assert_eq!(status(&api, Method::POST, "/v1/sessions", &[host, page]).await, 403, "{page:?}");
        assert_eq!(status(&api, Method::OPTIONS, "/v1/sessions", &[host, page]).await, 403, "{page:?}");
    }
    let own = [host, ("origin", "http://localhost:8088"), ("sec-fetch-site", "same-origin")];
    assert_eq!(status(&api, Method::POST, "/v1/sessions", &own).await, 201);
    let listed = api.send({
        let mut asked = request(Method::GET, "/v1/sessions", None, Body::empty());
        asked.headers_mut().insert("host", "localhost".parse().unwrap());
        asked
    });
    assert_eq!(listed.await.json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn where_everybody_is_authenticated_any_name_may_be_used() {
    let api = Api::start().await;
    assert_eq!(status(&api, Method::GET, "/healthz", &[("host", "enclave.example")]).await, 200);
}

#[tokio::test]
async fn the_dev_profile_needs_no_key_and_only_when_both_engine_and_api_are_told_so() {
    let create = || {
        let mut asked = request(Method::POST, "/v1/sessions", None, r#"{"code": "1"}"#.into());
        asked.headers_mut().insert("host", "127.0.0.1:8088".parse().unwrap());
        asked
    };
    let api = Builder::dev().start().await;
    let answer = api.send(create()).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.json()["createdBy"], "dev");

    let mut only_engine = Builder::dev();
    only_engine.settings.profile_is_dev = false;
    assert_eq!(only_engine.start().await.send(create()).await.status, 401);

    let only_api = Builder::default().settings(|settings| settings.profile_is_dev = true);
    assert_eq!(only_api.start().await.send(create()).await.status, 401);
}
