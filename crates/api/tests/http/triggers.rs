//! Triggers over HTTP: made, changed, fired by hand and by signed calls.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::body::Body;
use http::{Method, Request};
use model::{secret::Secret, webhook::signature::SigningSecret};
use serde_json::{Value, json};

use crate::harness::{Answer, Api, Key, eventually, request};

/// A name that no other trigger has.
pub(crate) fn new_name() -> String {
    static NAMES: AtomicU32 = AtomicU32::new(0);
    format!("trigger-{}", NAMES.fetch_add(1, Ordering::Relaxed))
}

/// A request for a trigger that calls fire.
pub(crate) fn body(name: &str) -> Value {
    json!({"name": name, "kind": {"type": "webhook"}, "session": {"code": "# sim: exit 0"}, "overlap": "allow"})
}

/// Makes one; gives its id and its secret.
async fn made(api: &Api, key: &Key) -> (String, SigningSecret) {
    let answer = api.put(key, Method::POST, "/v1/triggers", &body(&new_name())).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let made = answer.json();
    let secret = Secret::from(made["secret"].as_str().unwrap().to_owned());
    (made["id"].as_str().unwrap().to_owned(), SigningSecret::try_from(secret).unwrap())
}

/// Makes one, and gives its id.
pub(crate) async fn created(api: &Api, key: &Key) -> String {
    made(api, key).await.0
}

fn seconds() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

async fn call(api: &Api, id: &str, headers: [&str; 3], body: impl Into<Body>) -> Answer {
    let mut request = Request::builder().method(Method::POST).uri(format!("/v1/hooks/{id}"));
    for (name, value) in ["webhook-id", "webhook-timestamp", "webhook-signature"].into_iter().zip(headers) {
        request = request.header(name, value);
    }
    api.send(request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn a_trigger_goes_from_its_making_to_its_end() {
    let api = Api::start().await;
    let owner = api.owner().await;
    let schedule = json!({
        "name": "nightly", "kind": {"type": "schedule", "cron": "30 2 * * *", "timezone": "Europe/Berlin"},
        "session": {"code": "# sim: exit 0"}, "jitterMs": 1000,
    });
    let answer = api.put(&owner, Method::POST, "/v1/triggers", &schedule).await;
    let trigger = answer.json();
    let path = format!("/v1/triggers/{}", trigger["id"].as_str().unwrap());
    assert_eq!((answer.status.as_u16(), answer.header("location")), (201, path.as_str()));
    assert_eq!(
        (&trigger["secret"], &trigger["overlap"], &trigger["enabled"]),
        (&Value::Null, &json!("skip"), &json!(true))
    );
    assert!(trigger["nextFireAt"].is_string(), "{trigger}");
    assert_eq!(api.put(&owner, Method::POST, "/v1/triggers", &schedule).await.problem("conflict")["status"], 409);
    assert_eq!(api.get(&owner, &path).await.json(), trigger);

    let paused = api.put(&owner, Method::PATCH, &path, &json!({"enabled": false})).await.json();
    assert_eq!((&paused["enabled"], &paused["nextFireAt"]), (&json!(false), &Value::Null));
    let refused = api.put(&owner, Method::PATCH, &path, &json!({"kind": {"type": "webhook"}, "name": "x"})).await;
    assert_eq!(refused.fields(), ["name", "kind.type", "jitterMs"]);
    let run = api.put(&owner, Method::POST, &format!("{path}/fire"), &Value::Null).await.json();
    assert_eq!((&run["outcome"], &run["cause"]), (&json!("started"), &json!("manual")), "{run}");
    let session = api.get(&owner, &format!("/v1/sessions/{}", run["sessionId"].as_str().unwrap())).await.json();
    assert_eq!(session["createdBy"], trigger["id"]);
    assert_eq!(api.get(&owner, &format!("{path}/runs")).await.json()["items"], json!([run]));
    let no_secret = api.put(&owner, Method::POST, &format!("{path}/secret"), &Value::Null).await;
    no_secret.problem("wrong_state");
    let deleted = api.send(request(Method::DELETE, &path, Some(&owner), Body::empty())).await;
    assert_eq!((deleted.status.as_u16(), deleted.json()["id"].clone()), (200, trigger["id"].clone()));
    api.get(&owner, &path).await.problem("not_found");
}

#[tokio::test]
async fn faults_of_a_trigger_and_of_its_session_come_together() {
    let api = Api::start().await;
    let owner = api.owner().await;
    let faulty = json!({
        "name": "", "kind": {"type": "schedule", "cron": "x", "timezone": "UTC"}, "jitterMs": 99_999_999,
        "session": {"code": "", "image": 5, "surplus": true},
    });
    let answer = api.put(&owner, Method::POST, "/v1/triggers?x=1", &faulty).await;
    answer.problem("invalid_request");
    let expected = ["x", "name", "kind.cron", "jitterMs", "session.image", "session.surplus", "session.code"];
    assert_eq!(answer.fields(), expected);
    let interactive = json!({"name": "a", "kind": {"type": "webhook"}, "session": {"code": "1", "image": "other"}});
    let answer = api.put(&owner, Method::POST, "/v1/triggers", &interactive).await;
    answer.problem("not_enforceable");
    assert_eq!(answer.fields(), ["session.image"]);
}

#[tokio::test]
async fn a_signed_call_is_taken_once_and_the_secret_is_told_once() {
    let api = Api::start().await;
    let owner = api.owner().await;
    let (id, secret) = made(&api, &owner).await;
    let now = seconds();
    let signature = secret.sign("msg_1", now, b"{\"a\":1}");
    let headers = ["msg_1", &now.to_string(), &signature];
    let run = call(&api, &id, headers, "{\"a\":1}").await;
    assert_eq!((run.status.as_u16(), &run.json()["outcome"]), (200, &json!("started")), "{run:?}");
    let session = run.json()["sessionId"].as_str().unwrap().to_owned();
    eventually("it ends", async || {
        api.get(&owner, &format!("/v1/sessions/{session}")).await.json()["outcome"] == "succeeded"
    })
    .await;
    let replay = call(&api, &id, headers, "{\"a\":1}").await;
    assert_eq!(replay.status, 409);
    replay.problem("replayed");
    let rotated = api.put(&owner, Method::POST, &format!("/v1/triggers/{id}/secret"), &Value::Null).await.json();
    assert!(rotated["secret"].as_str().unwrap().starts_with("whsec_"));
    assert_eq!(rotated["secretVersion"], 2);
    for shown in [format!("/v1/triggers/{id}"), "/v1/triggers".to_owned(), format!("/v1/triggers/{id}/runs")] {
        let shown = api.get(&owner, &shown).await;
        assert!(shown.status == 200 && !format!("{shown:?}").contains("whsec_"), "{shown:?}");
    }
    api.put(&owner, Method::PATCH, &format!("/v1/triggers/{id}"), &json!({"enabled": false})).await;
    let secret = SigningSecret::try_from(Secret::from(rotated["secret"].as_str().unwrap().to_owned())).unwrap();
    let paused = call(&api, &id, ["msg_2", &now.to_string(), &secret.sign("msg_2", now, b"")], "").await;
    paused.problem("wrong_state");
}

#[tokio::test]
async fn a_call_that_is_not_signed_cannot_tell_what_is_wrong_with_it() {
    let api = Api::start().await;
    let (owner, stranger) = (api.owner().await, api.key(api.other, wire::Role::Owner, None).await);
    let (id, _) = made(&api, &owner).await;
    let (_, theirs) = made(&api, &stranger).await;
    let scheduled = json!({"name": "s", "kind": {"type": "schedule", "cron": "0 0 1 1 *"}, "session": {"code": "1"}});
    let scheduled = api.put(&owner, Method::POST, "/v1/triggers", &scheduled).await.json();
    let now = seconds();
    let (time, old) = (now.to_string(), (now - 600).to_string());
    let signature = theirs.sign("msg_1", now, b"{}");
    let mut answers = Vec::new();
    for (id, headers) in [
        (id.as_str(), ["msg_1", &time, &signature]),
        (&id, ["msg_1", &old, &theirs.sign("msg_1", now - 600, b"{}")]),
        (&id, ["", "", ""]),
        (scheduled["id"].as_str().unwrap(), ["msg_1", &time, &signature]),
        ("trg_01890a5d-ac96-774b-bcce-b302099a8057", ["msg_1", &time, &signature]),
        ("nonsense", ["msg_1", &time, &signature]),
        ("%FF", ["msg_1", &time, &signature]),
    ] {
        let answer = call(&api, id, headers, "{}").await;
        answer.problem("unauthenticated");
        let request_id = answer.header("x-request-id").to_owned();
        answers.push(String::from_utf8(answer.bytes).unwrap().replace(&request_id, "<id>"));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:#?}");
    let large = call(&api, &id, ["msg_1", &time, &signature], vec![b'x'; (1 << 20) + 1]).await;
    large.problem("body_too_large");
    assert_eq!(api.get(&owner, "/v1/sessions").await.json()["items"], json!([]));
}
