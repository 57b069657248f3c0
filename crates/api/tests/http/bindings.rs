//! Bindings over HTTP: what goes in, what comes out, and that no secret does.

use std::sync::atomic::{AtomicU32, Ordering};

use http::Method;
use serde_json::{Value, json};
use store::AuditFilter;
use wire::Role;

use crate::harness::{Api, Key};

const SECRET: &str = "canary-1-of-the-api";
const NEXT: &str = "canary-2-of-the-api";

/// A name that no other binding has.
pub(crate) fn new_name() -> String {
    static NAMES: AtomicU32 = AtomicU32::new(0);
    format!("service-{}", NAMES.fetch_add(1, Ordering::Relaxed))
}

/// A request for a binding.
pub(crate) fn body(name: &str) -> Value {
    json!({
        "name": name, "kind": {"type": "bearer"}, "upstream": {"url": "https://api.example.com/v1"},
        "secret": {"value": SECRET},
    })
}

/// Makes one, and gives its id.
pub(crate) async fn created(api: &Api, key: &Key) -> String {
    let answer = api.put(key, Method::POST, "/v1/bindings", &body(&new_name())).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_binding_goes_from_its_making_to_its_end_and_no_answer_has_its_secret() {
    let api = Api::start().await;
    let owner = api.owner().await;
    let made = api.put(&owner, Method::POST, "/v1/bindings", &body("github")).await;
    let binding = made.json();
    let path = format!("/v1/bindings/{}", binding["id"].as_str().unwrap());
    assert_eq!((made.status.as_u16(), made.header("location")), (201, path.as_str()));
    assert_eq!((&binding["name"], &binding["secretVersion"]), (&json!("github"), &json!(1)));
    assert_eq!(binding["kind"], json!({"type": "bearer"}));

    let again = api.put(&owner, Method::POST, "/v1/bindings", &body("github")).await;
    assert_eq!(again.status, 409);
    again.problem("conflict");

    let read = api.get(&owner, &path).await;
    assert_eq!(read.json(), binding);
    let change = json!({"allow": [{"methods": ["GET"], "paths": ["/user"]}], "budget": {"calls": 5}});
    let changed = api.put(&owner, Method::PATCH, &path, &change).await;
    assert_eq!(
        (changed.json()["allow"].clone(), changed.json()["budget"].clone()),
        (change["allow"].clone(), change["budget"].clone())
    );
    let rotated = api.put(&owner, Method::PUT, &format!("{path}/secret"), &json!({"value": NEXT})).await;
    assert_eq!(rotated.json()["secretVersion"], 2, "{rotated:?}");
    let listed = api.get(&owner, "/v1/bindings").await;
    assert_eq!(listed.json(), json!({"items": [rotated.json()]}));

    let deleted =
        api.send(crate::harness::request(Method::DELETE, &path, Some(&owner), axum::body::Body::empty())).await;
    assert_eq!((deleted.status.as_u16(), deleted.json()), (200, rotated.json()));
    let gone = api.get(&owner, &path).await;
    gone.problem("not_found");

    for answer in [&made, &again, &read, &changed, &rotated, &listed, &deleted, &gone] {
        assert!(!format!("{answer:?}").contains("canary"), "{answer:?}");
    }
    let log = api.store.tenant(api.org).audit(AuditFilter { session: None, after_seq: 0, limit: 100 }).await.unwrap();
    let told: Vec<_> = log.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(told, ["key_created", "binding_created", "binding_updated", "binding_rotated", "binding_deleted"]);
    assert!(!serde_json::to_string(&log).unwrap().contains("canary"));
    assert!(log[1..].iter().all(|event| event.actor == owner.id.to_string()));
    assert_eq!(log[1].data["upstream"], "api.example.com:443");
}

#[tokio::test]
async fn every_fault_comes_at_once_and_none_repeats_a_secret() {
    let api = Api::start().await;
    let owner = api.owner().await;
    let faulty = json!({
        "name": "No", "kind": {"type": "header", "name": "host", "template": "x"}, "surplus": 1,
        "upstream": {"url": "https://me:canary@a.test"}, "allow": [{"methods": ["get"]}], "budget": {"calls": 0},
        "secret": {"value": "canary\n", "clientSecret": "canary-client", "canaries": 1},
    });
    let answer = api.put(&owner, Method::POST, "/v1/bindings?surplus=1", &faulty).await;
    answer.problem("invalid_request");
    assert_eq!(
        answer.fields(),
        [
            "surplus",
            "secret.canaries",
            "surplus",
            "name",
            "kind.name",
            "kind.template",
            "upstream.url",
            "allow[0].methods[0]",
            "budget.calls",
            "secret.value",
            "secret.value",
            "secret.clientSecret"
        ]
    );
    assert!(!answer.json().to_string().replace("secret.canaries", "").contains("canary"), "{answer:?}");

    let broken = crate::harness::request(Method::POST, "/v1/bindings", Some(&owner), r#"{"secret": "canary"#.into());
    let answer = api.send(broken).await;
    answer.problem("malformed_json");
    assert!(!format!("{answer:?}").contains("canary"), "{answer:?}");
}

#[tokio::test]
async fn a_secret_is_not_led_elsewhere_by_who_does_not_have_it() {
    let api = Api::start().await;
    let owner = api.owner().await;
    let admin = api.key(api.org, Role::Admin, None).await;
    let path = format!("/v1/bindings/{}", created(&api, &owner).await);
    let mut change = json!({"upstream": {"url": "https://evil.example.com"}});
    let refused = api.put(&admin, Method::PATCH, &path, &change).await;
    refused.problem("invalid_request");
    assert_eq!(refused.fields(), ["secret"]);
    change["secret"] = json!({"value": NEXT});
    let changed = api.put(&admin, Method::PATCH, &path, &change).await;
    assert_eq!((changed.status.as_u16(), &changed.json()["secretVersion"]), (200, &json!(2)), "{changed:?}");
    let named = api.put(&admin, Method::PATCH, &path, &json!({"name": "other"})).await;
    assert_eq!(named.fields(), ["name"]);
}

#[tokio::test]
async fn bindings_are_listed_by_name_page_by_page() {
    let api = Api::start().await;
    let owner = api.owner().await;
    for name in ["c", "a", "b"] {
        api.put(&owner, Method::POST, "/v1/bindings", &body(name)).await;
    }
    let mut names = Vec::new();
    let mut path = "/v1/bindings?limit=1".to_owned();
    loop {
        let page = api.get(&owner, &path).await.json();
        names.extend(page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        path = format!("/v1/bindings?limit=1&cursor={cursor}");
    }
    assert_eq!(names, ["a", "b", "c"]);
    let filtered = api.get(&owner, "/v1/bindings?name=b").await.json();
    assert_eq!(filtered["items"].as_array().unwrap().len(), 1);
    let refused = api.get(&owner, "/v1/bindings?cursor=abc").await;
    assert_eq!(refused.fields(), ["cursor"]);
}
