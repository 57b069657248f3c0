//! Turns through the API: what is refused, and how.

use http::Method;
use serde_json::json;

use crate::harness::{Api, request};

#[tokio::test]
async fn a_session_that_is_not_interactive_takes_no_turns() {
    let api = Api::start().await;
    let key = api.owner().await;
    let running = api.session(&key, &["hang"]).await;
    let ended = api.ended_session(&key, &["exit 0"]).await;
    for id in [&running, &ended] {
        let path = format!("/v1/sessions/{id}/turns");
        let refused = api.put(&key, Method::POST, &path, &json!({ "code": "1 + 1" })).await;
        assert_eq!(refused.status, 409, "{refused:?}");
        refused.problem("wrong_state");
        assert_eq!(api.get(&key, &path).await.json(), json!({ "items": [] }));
        for path in [format!("{path}/1"), format!("{path}/0"), format!("{path}/x"), format!("{path}/4294967296")] {
            api.get(&key, &path).await.problem("not_found");
        }
    }
}

#[tokio::test]
async fn every_fault_of_a_turn_is_told_by_name() {
    let api = Api::start().await;
    let key = api.owner().await;
    let id = api.session(&key, &["hang"]).await;
    let path = format!("/v1/sessions/{id}/turns");
    let malformed = api.send(request(Method::POST, &path, Some(&key), "{\"code\": 1, \"code\": 2}".into())).await;
    malformed.problem("malformed_json");
    let query = api.put(&key, Method::POST, &format!("{path}?wait=1"), &json!({ "code": "1" })).await;
    assert_eq!((query.status.as_u16(), query.fields()), (400, vec!["wait".into()]));
    let list = api.get(&key, &format!("{path}?limit=0&cursor=x&page=1")).await;
    assert_eq!(list.fields(), ["limit", "page"]);
    api.get(&key, &format!("{path}?cursor=x")).await.problem("invalid_request");
}

#[tokio::test]
async fn bounds_of_a_conversation_are_refused_by_name() {
    let api = Api::start().await;
    let key = api.owner().await;
    let body = json!({
        "execMode": "interactive", "code": "x\u{0}",
        "interactive": {"idleTtlMs": 1, "maxLifetimeMs": "long", "turnTimeoutMs": 86_400_001, "surplus": 1},
    });
    let refused = api.post(&key, body.to_string()).await;
    let mut fields = refused.fields();
    fields.sort();
    let expected =
        ["idleTtlMs", "maxLifetimeMs", "surplus", "turnTimeoutMs"].map(|field| format!("interactive.{field}"));
    assert_eq!(fields, [vec!["code".to_owned()], expected.to_vec()].concat());
    let oneshot = api.post(&key, json!({ "code": "1", "interactive": {} }).to_string()).await;
    assert_eq!(oneshot.fields(), ["interactive"]);
}
