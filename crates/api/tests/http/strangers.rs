//! What belongs to another org cannot be told from what does not exist.

use http::Method;
use serde_json::Value;
use wire::Role;

use crate::{
    bindings, fleets,
    harness::{Answer, Api, Key},
    identity::{ABSENT, Documented, documented},
    triggers, webhooks,
};

#[tokio::test]
async fn another_orgs_session_cannot_be_told_from_one_that_does_not_exist() {
    let api = Api::start().await;
    let owner = api.owner().await;
    let stranger = api.key(api.other, Role::Owner, None).await;
    let finished = api.ended_session(&owner, &["exit 0"]).await;
    let running = api.session(&owner, &["sleep 1h"]).await;
    let ids = [finished.as_str(), running.as_str(), "nonsense", "ses_", "%FF", "..%2f", "ses_%00"];
    assert_eq!(none_can_be_told(&api, &stranger, "ses", &ids).await, 19 * 7);
    let still = api.get(&owner, &format!("/v1/sessions/{running}")).await.json();
    assert_eq!(still["outcome"], Value::Null, "{still}");
    assert_eq!(api.get(&stranger, "/v1/sessions").await.json()["items"], serde_json::json!([]));
}

#[tokio::test]
async fn another_orgs_binding_cannot_be_told_from_one_that_does_not_exist() {
    let api = Api::start().await;
    let (owner, stranger) = (api.owner().await, api.key(api.other, Role::Owner, None).await);
    let id = bindings::created(&api, &owner).await;
    let before = api.get(&owner, &format!("/v1/bindings/{id}")).await.json();
    let name = before["name"].as_str().unwrap();
    let ids = [id.as_str(), name, "nonsense", "bnd_", "%FF", "..%2f", "bnd_%00"];
    assert_eq!(none_can_be_told(&api, &stranger, "bnd", &ids).await, 4 * 7);
    assert_eq!(api.get(&owner, &format!("/v1/bindings/{id}")).await.json(), before);
    for list in ["/v1/bindings".to_owned(), format!("/v1/bindings?name={name}")] {
        assert_eq!(api.get(&stranger, &list).await.json()["items"], serde_json::json!([]));
    }
    // The name is free in the other org.
    let taken = api.put(&stranger, Method::POST, "/v1/bindings", &bindings::body(name)).await;
    assert_eq!(taken.status, 201, "{taken:?}");
}

#[tokio::test]
async fn another_orgs_delivery_cannot_be_told_from_one_that_does_not_exist() {
    let api = Api::start().await;
    let (owner, stranger) = (api.owner().await, api.key(api.other, Role::Owner, None).await);
    let id = webhooks::delivered(&api, &owner).await;
    let ids = [id.as_str(), "nonsense", "whd_", "%FF", "..%2f", "whd_%00"];
    assert_eq!(none_can_be_told(&api, &stranger, "whd", &ids).await, 6);
    assert_eq!(api.get(&stranger, "/v1/webhooks/deliveries").await.json()["items"], serde_json::json!([]));
}

#[tokio::test]
async fn another_orgs_trigger_cannot_be_told_from_one_that_does_not_exist() {
    let api = Api::start().await;
    let (owner, stranger) = (api.owner().await, api.key(api.other, Role::Owner, None).await);
    let id = triggers::created(&api, &owner).await;
    let ids = [id.as_str(), "nonsense", "trg_", "%FF", "..%2f", "trg_%00"];
    assert_eq!(none_can_be_told(&api, &stranger, "trg", &ids).await, 6 * 6);
    assert_eq!(api.get(&owner, &format!("/v1/triggers/{id}")).await.json()["enabled"], true);
    assert_eq!(api.get(&stranger, "/v1/triggers").await.json()["items"], serde_json::json!([]));
}

#[tokio::test]
async fn another_orgs_fleet_cannot_be_told_from_one_that_does_not_exist() {
    let api = Api::start().await;
    let (owner, stranger) = (api.owner().await, api.key(api.other, Role::Owner, None).await);
    let ended = fleets::ended(&api, &owner, 2).await;
    let running = fleets::created(&api, &owner, &fleets::body(&["hang"])).await;
    let ids = [ended.as_str(), running.as_str(), "nonsense", "flt_", "%FF", "..%2f", "flt_%00"];
    assert_eq!(none_can_be_told(&api, &stranger, "flt", &ids).await, 5 * 7);
    let still = api.get(&owner, &format!("/v1/fleets/{running}")).await.json();
    assert_eq!(still["finishedAt"], Value::Null, "{still}");
    assert_eq!(api.get(&stranger, "/v1/fleets").await.json()["items"], serde_json::json!([]));
}

/// Tries every operation on each id, and gives how many tries there were.
async fn none_can_be_told(api: &Api, stranger: &Key, prefix: &str, ids: &[&str]) -> usize {
    let mut tried = 0;
    let concerned = |operation: &&Documented| operation.path.contains("{id}") && operation.prefix() == prefix;
    for operation in documented().iter().filter(concerned) {
        let absent = format!("{prefix}_{ABSENT}");
        let absent = comparable(api.send(operation.request(Some(stranger), &absent)).await);
        assert!(absent.starts_with("404"), "{absent}");
        for id in ids {
            let answer = comparable(api.send(operation.request(Some(stranger), id)).await);
            assert_eq!(answer, absent, "{} of {id}", operation.operation.id());
            tried += 1;
        }
    }
    tried
}

/// An answer without what differs from request to request.
fn comparable(answer: Answer) -> String {
    let id = answer.header("x-request-id").to_owned();
    let mut headers: Vec<_> = answer.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
    headers.sort();
    let text =
        format!("{} {} {}", answer.status.as_u16(), headers.join("\n"), String::from_utf8(answer.bytes).unwrap());
    text.replace(&id, "<id>")
}
