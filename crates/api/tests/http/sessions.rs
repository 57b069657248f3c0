//! The life of a session through the API.

use axum::body::Body;
use http::Method;
use serde_json::{Value, json};
use wire::Role;

use crate::harness::{Api, Builder, Key, program, request};

#[tokio::test]
async fn a_session_is_created_runs_gives_its_result_and_is_torn_down() {
    let api = Api::start().await;
    let key = api.owner().await;
    let created = api.post(&key, program(&["stdout hello\\n", "result {\"answer\": 42}", "exit 0"]).to_string()).await;
    assert_eq!(created.status, 201);
    let id = created.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(created.header("location"), format!("/v1/sessions/{id}"));
    assert_eq!(created.json()["createdBy"], key.id.to_string());

    let result = api.get(&key, &format!("/v1/sessions/{id}/result?waitMs=20000")).await;
    assert_eq!(result.status, 200);
    assert_eq!(result.json()["outcome"], "succeeded");
    assert_eq!(result.json()["result"], json!({ "answer": 42 }));
    assert_eq!(result.json()["stdoutTail"], "hello\n");

    let deleted = api.send(request(Method::DELETE, &format!("/v1/sessions/{id}"), Some(&key), Body::empty())).await;
    assert_eq!((deleted.status.as_u16(), &deleted.json()["phase"]), (200, &"torn_down".into()));

    let audit = api.get(&key, &format!("/v1/sessions/{id}/audit")).await.json();
    let types: Vec<_> =
        audit["items"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(
        types,
        [
            "session_created",
            "sandbox_provisioned",
            "sandbox_started",
            "workload_exited",
            "result_collected",
            "session_torn_down"
        ]
    );
}

#[tokio::test]
async fn audit_events_come_in_pages() {
    let api = Api::start().await;
    let key = api.owner().await;
    let id = api.ended_session(&key, &["exit 0"]).await;
    let whole = api.get(&key, &format!("/v1/sessions/{id}/audit")).await.json();
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.get(&key, &format!("/v1/sessions/{id}/audit?limit=4{cursor}")).await.json();
        pages.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(Value::from(pages), whole["items"]);
}

#[tokio::test]
async fn a_session_that_runs_has_no_result_yet_and_is_ended_by_delete() {
    let api = Api::start().await;
    let key = api.owner().await;
    let id = api.session(&key, &["sleep 1h"]).await;
    for wait in ["", "?waitMs=0", "?waitMs=30"] {
        let early = api.get(&key, &format!("/v1/sessions/{id}/result{wait}")).await;
        assert_eq!(early.status, 409);
        early.problem("not_finished");
    }
    for _ in 0..2 {
        let ended = api.send(request(Method::DELETE, &format!("/v1/sessions/{id}"), Some(&key), Body::empty())).await;
        assert_eq!(ended.status, 200);
        assert_eq!((&ended.json()["outcome"], &ended.json()["phase"]), (&"cancelled".into(), &"torn_down".into()));
    }
}

#[tokio::test]
async fn the_same_idempotency_key_gives_the_same_session_and_another_body_a_conflict() {
    let api = Api::start().await;
    let key = api.owner().await;
    let post = async |body: &'static str| {
        let mut asked = request(Method::POST, "/v1/sessions", Some(&key), body.into());
        asked.headers_mut().insert("idempotency-key", "build-17".parse().unwrap());
        api.send(asked).await
    };
    let first = post(r#"{"code": "1"}"#).await;
    let again = post(r#"{"code": "1"}"#).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201));
    assert_eq!(first.json()["id"], again.json()["id"]);
    let other = post(r#"{"code": "2"}"#).await;
    assert_eq!(other.status, 409);
    other.problem("idempotency_conflict");
}

#[tokio::test]
async fn idempotency_keys_of_two_orgs_have_nothing_to_do_with_one_another() {
    let api = Api::start().await;
    let keys = [api.owner().await, api.key(api.other, Role::Owner, None).await];
    let mut ids = Vec::new();
    for key in &keys {
        let mut asked = request(Method::POST, "/v1/sessions", Some(key), r#"{"code": "1"}"#.into());
        asked.headers_mut().insert("idempotency-key", "same".parse().unwrap());
        let answer = api.send(asked).await;
        assert_eq!(answer.status, 201);
        ids.push(answer.json()["id"].clone());
    }
    assert_ne!(ids[0], ids[1]);
}

async fn listed(api: &Api, key: &Key, query: &str) -> Vec<String> {
    let page = api.get(key, &format!("/v1/sessions?{query}")).await;
    assert_eq!(page.status, 200, "{page:?}");
    page.json()["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn lists_are_newest_first_paged_and_filtered() {
    let api = Api::start().await;
    let key = api.owner().await;
    let mut created = Vec::new();
    for n in 0..5 {
        let body = json!({ "code": "# sim: sleep 1h", "labels": { "team": format!("t{}", n % 2), "url": "a:b" } });
        let session = api.post(&key, body.to_string()).await.json();
        created.push((session["createdAt"].to_string(), session["id"].as_str().unwrap().to_owned(), n % 2));
    }
    // Ids of one millisecond are in no order but their own.
    created.sort_by(|a, b| b.cmp(a));
    let ids: Vec<_> = created.iter().map(|(_, id, _)| id.clone()).collect();
    let odd: Vec<_> = created.iter().filter(|(_, _, team)| *team == 1).map(|(_, id, _)| id.clone()).collect();
    assert_eq!(listed(&api, &key, "").await, ids);
    assert_eq!(listed(&api, &key, "label=team:t1&label=url:a:b").await, odd);
    assert_eq!(listed(&api, &key, "label=team:t1&label=url:a").await, Vec::<String>::new());
    assert_eq!(listed(&api, &key, "phase=torn_down").await, Vec::<String>::new());

    let first = api.get(&key, "/v1/sessions?limit=2").await.json();
    let cursor = first["nextCursor"].as_str().unwrap();
    assert_eq!(listed(&api, &key, &format!("limit=100&cursor={cursor}")).await, ids[2..]);
}

#[tokio::test]
async fn what_does_not_fit_the_queue_is_told_when_to_come_again() {
    let mut builder = Builder::default();
    (builder.config.max_concurrency, builder.config.max_queue) = (1, 1);
    let api = builder.start().await;
    let key = api.owner().await;
    let mut refused = None;
    for _ in 0..3 {
        let answer = api.post(&key, program(&["sleep 1h"]).to_string()).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status, 201);
    }
    let refused = refused.expect("the third session does not fit");
    refused.problem("busy");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
}

#[tokio::test]
async fn what_cannot_be_enforced_or_is_not_offered_is_refused_by_name() {
    let api = Api::start().await;
    let key = api.owner().await;
    let refused = api.post(&key, json!({ "code": "1", "image": "other" }).to_string()).await;
    assert_eq!(refused.status, 422);
    refused.problem("not_enforceable");
    assert_eq!(refused.fields(), ["image"]);

    let refused = api.post(&key, json!({ "code": "1", "artifacts": ["*"] }).to_string()).await;
    assert_eq!(refused.status, 422);
    refused.problem("not_supported");
    assert_eq!(refused.fields(), ["artifacts"]);
}

#[tokio::test]
async fn backends_say_what_they_enforce() {
    let api = Api::start().await;
    let backends = api.get(&api.owner().await, "/v1/backends").await.json();
    assert_eq!(backends["items"][0]["executes"], false);
    assert!(backends["items"][0]["enforcement"]["memory"].is_string());
}
