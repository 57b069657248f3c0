//! Webhooks over HTTP: where they may go, the log of deliveries, the secret.

use async_trait::async_trait;
use engine::{Answer, Courier, Letter, Undelivered};
use http::Method;
use serde_json::{Value, json};
use wire::Role;

use crate::harness::{Api, Key, eventually};

/// Takes what goes to `takes.example`, and fails at the rest.
pub(crate) struct Receiver;

#[async_trait]
impl Courier for Receiver {
    async fn carry(&self, letter: &Letter) -> Result<Answer, Undelivered> {
        let status = if letter.url.as_str().contains("takes.example") { 200 } else { 500 };
        Ok(Answer { status, body: b"<script>\x07</script>".to_vec() })
    }
}

/// A session that has ended with a message to `host`; gives its id.
pub(crate) async fn told(api: &Api, key: &Key, host: &str) -> String {
    let body = json!({"code": "# sim: exit 0", "webhookUrl": format!("https://{host}/hook")});
    let answer = api.post(key, body.to_string()).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    eventually("it is tried", async || delivery(api, key, &id).await["attempts"].as_u64().is_some_and(|n| n > 0)).await;
    id
}

/// The only delivery of a session; null before there is one.
async fn delivery(api: &Api, key: &Key, session: &str) -> Value {
    let page = api.get(key, &format!("/v1/webhooks/deliveries?session={session}")).await.json();
    page["items"].get(0).cloned().unwrap_or_default()
}

/// A delivery that can be tried again; gives its id.
pub(crate) async fn delivered(api: &Api, key: &Key) -> String {
    let session = told(api, key, "fails.example").await;
    delivery(api, key, &session).await["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_log_says_what_became_of_each_message() {
    let api = Api::start().await;
    let owner = api.owner().await;
    let (good, bad) = (told(&api, &owner, "takes.example").await, told(&api, &owner, "fails.example").await);
    let (good, bad) = (delivery(&api, &owner, &good).await, delivery(&api, &owner, &bad).await);
    assert_eq!((&good["status"], &good["type"]), (&json!("delivered"), &json!("session.finished")));
    assert_eq!((&good["lastAttempt"]["status"], &good["lastAttempt"]["error"]), (&json!(200), &Value::Null));
    assert!(good["messageId"].as_str().unwrap().starts_with("msg_"));
    assert_eq!((&bad["status"], &bad["lastAttempt"]["error"]), (&json!("pending"), &json!("it answered 500")));
    assert_eq!(bad["lastAttempt"]["excerpt"], "<script>\u{fffd}</script>");
    assert!(bad["nextAttemptAt"].is_string() && bad["finishedAt"].is_null());
    let pending = api.get(&owner, "/v1/webhooks/deliveries?status=pending").await.json();
    assert_eq!(pending["items"].as_array().unwrap().len(), 1);
    let first = api.get(&owner, "/v1/webhooks/deliveries?limit=1").await.json();
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = api.get(&owner, &format!("/v1/webhooks/deliveries?limit=1&cursor={cursor}")).await.json();
    assert_eq!((&first["items"][0]["id"], &second["items"][0]["id"]), (&bad["id"], &good["id"]));
    assert_eq!(api.get(&owner, "/v1/webhooks/deliveries?status=x&page=1").await.fields(), ["status", "page"]);

    let path = format!("/v1/webhooks/deliveries/{}/retry", bad["id"].as_str().unwrap());
    let retried = api.put(&owner, Method::POST, &path, &Value::Null).await;
    assert_eq!((retried.status.as_u16(), &retried.json()["id"]), (200, &bad["id"]), "{retried:?}");
    let session = bad["sessionId"].as_str().unwrap();
    eventually("it is tried again", async || delivery(&api, &owner, session).await["attempts"] == 2).await;
}

#[tokio::test]
async fn the_secret_is_given_out_once_and_nowhere_else() {
    let api = Api::start().await;
    let admin = api.key(api.org, Role::Admin, None).await;
    let none = api.get(&admin, "/v1/webhooks/secret").await;
    assert_eq!(none.json(), json!({"version": 0}));
    let made = api.put(&admin, Method::POST, "/v1/webhooks/secret", &Value::Null).await.json();
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_") && secret.len() > 40);
    assert_eq!((&made["version"], &made["previousUntil"]), (&json!(1), &Value::Null));
    let again = api.put(&admin, Method::POST, "/v1/webhooks/secret", &Value::Null).await.json();
    assert_eq!(again["version"], 2);
    assert_ne!(again["secret"], made["secret"]);
    let shown = api.get(&admin, "/v1/webhooks/secret").await.json();
    assert_eq!((&shown["version"], &shown["previousUntil"]), (&json!(2), &again["previousUntil"]));
    assert!(!shown.to_string().contains("whsec_"));
    let log = api.store.tenant(api.org).audit(store::AuditFilter { session: None, after_seq: 0, limit: 99 }).await;
    assert!(!serde_json::to_string(&log.unwrap()).unwrap().contains("whsec_"));
}

#[tokio::test]
async fn a_webhook_url_that_leads_inside_is_refused_by_name_before_anything_starts() {
    let api = Api::start().await;
    let owner = api.owner().await;
    for url in
        ["http://127.0.0.1:9/", "https://[::ffff:169.254.169.254]/", "https://2852039166/", "https://u@a.example/"]
    {
        let answer = api.post(&owner, json!({"code": "1", "webhookUrl": url}).to_string()).await;
        assert_eq!(answer.status, 400, "{url}");
        answer.problem("invalid_request");
        assert_eq!(answer.fields(), ["webhookUrl"], "{url}");
    }
    assert_eq!(api.get(&owner, "/v1/sessions").await.json()["items"], json!([]));
    let both = api.post(&owner, json!({"webhookUrl": "ftp://x", "args": 5}).to_string()).await;
    assert_eq!(both.fields(), ["args", "code", "webhookUrl"]);
}
