//! Turns through the API.

use axum::body::Body;
use http::Method;
use serde_json::json;
use tower::ServiceExt as _;

use crate::harness::{Answer, Api, Key, eventually, request, within};

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

impl Api {
    async fn conversation(&self, key: &Key) -> String {
        let made = self.post(key, json!({ "execMode": "interactive" }).to_string()).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.json()["id"].as_str().unwrap().to_owned()
    }

    async fn turn(&self, key: &Key, id: &str, code: &str) -> Answer {
        self.put(key, Method::POST, &format!("/v1/sessions/{id}/turns"), &json!({ "code": code })).await
    }
}

#[tokio::test]
async fn a_turn_is_run_told_and_read_again() {
    let api = Api::start().await;
    let key = api.owner().await;
    let id = api.conversation(&key).await;
    let session = api.get(&key, &format!("/v1/sessions/{id}")).await.json();
    let bounds = json!({ "idleTtlMs": 300_000, "maxLifetimeMs": 3_600_000, "turnTimeoutMs": 60_000 });
    assert_eq!((&session["interactive"], &session["execMode"]), (&bounds, &json!("interactive")));
    api.turn(&key, &id, "x = 20").await;
    let answer = api.turn(&key, &id, "print(x)\nx + 1").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let turn = answer.json();
    assert_eq!((&turn["number"], &turn["status"]), (&json!(2), &json!("completed")));
    assert_eq!((&turn["value"]["text/plain"], &turn["stdoutTail"]), (&json!("21"), &json!("20\n")));
    assert_eq!(
        (&turn["error"], &turn["result"], &turn["stdoutTruncated"]),
        (&json!(null), &json!(null), &json!(false))
    );
    assert_eq!(api.get(&key, &format!("/v1/sessions/{id}/turns/2")).await.json(), turn);
    let list = api.get(&key, &format!("/v1/sessions/{id}/turns?limit=1")).await.json();
    let cursor = list["nextCursor"].as_str().unwrap();
    let rest = api.get(&key, &format!("/v1/sessions/{id}/turns?cursor={cursor}")).await.json();
    assert_eq!(rest, json!({ "items": [turn] }));
    let asked = json!({ "code": "1", "timeoutMs": 60_001 });
    let refused = api.put(&key, Method::POST, &format!("/v1/sessions/{id}/turns"), &asked).await;
    assert_eq!(refused.fields(), ["timeoutMs"]);
}

#[tokio::test]
async fn a_turn_streams_when_events_are_asked_for() {
    let api = Api::start().await;
    let key = api.owner().await;
    let id = api.conversation(&key).await;
    let body = json!({ "code": "print('hello')" }).to_string();
    let mut asked = request(Method::POST, &format!("/v1/sessions/{id}/turns"), Some(&key), body.into());
    asked.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
    let answer = api.send(asked).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "text/event-stream"));
    let text = String::from_utf8(answer.bytes).unwrap();
    let kinds: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(kinds[kinds.len() - 4..], ["turn", "stdout", "turn", "end"], "{text}");
    let last = text.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().unwrap();
    let turn: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!((&turn["status"], &turn["stdoutTail"]), (&json!("completed"), &json!("hello\n")));
}

#[tokio::test]
async fn a_turn_is_interrupted_and_more_than_may_wait_are_refused() {
    let api = Api::start().await;
    let key = api.owner().await;
    let id = api.conversation(&key).await;
    let (path, mut asking) = (format!("/v1/sessions/{id}/turns"), Vec::new());
    for _ in 0..17 {
        let body = json!({ "code": "# sim: hang" }).to_string();
        asking.push(tokio::spawn(api.router.clone().oneshot(request(Method::POST, &path, Some(&key), body.into()))));
    }
    eventually("the queue is full", async || api.get(&key, &format!("{path}/17")).await.status == 200).await;
    let full = api.turn(&key, &id, "1").await;
    assert_eq!(full.status, 409, "{full:?}");
    full.problem("turn_queue_full");
    for number in (1..=17).rev() {
        let stop = request(Method::POST, &format!("{path}/{number}/interrupt"), Some(&key), Body::empty());
        assert_eq!(api.send(stop).await.status, 200);
    }
    for asked in asking {
        assert_eq!(within("the turn ends", asked).await.unwrap().unwrap().status(), 200);
    }
    let turns = api.get(&key, &path).await.json();
    let interrupted = |turn: &serde_json::Value| turn["status"] == "interrupted" && turn["interruptedBy"] == "caller";
    assert!(turns["items"].as_array().unwrap().iter().all(interrupted), "{turns}");
}
