//! Fleets through the API.

use axum::body::Body;
use engine::Config;
use http::{HeaderValue, Method};
use serde_json::{Value, json};

use crate::harness::{Answer, Api, Builder, Key, eventually, program, request};

/// A fleet of which each member runs one script of the simulator.
pub(crate) fn body(scripts: &[&str]) -> Value {
    json!({ "name": "test", "members": scripts.iter().map(|script| program(&[script])).collect::<Vec<_>>() })
}

async fn create(api: &Api, key: &Key, body: &Value) -> Answer {
    api.put(key, Method::POST, "/v1/fleets", body).await
}

/// Creates a fleet, and gives its id.
pub(crate) async fn created(api: &Api, key: &Key, body: &Value) -> String {
    let answer = create(api, key, body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), format!("/v1/fleets/{id}"));
    id
}

async fn fleet(api: &Api, key: &Key, id: &str) -> Value {
    api.get(key, &format!("/v1/fleets/{id}")).await.json()
}

async fn finished(api: &Api, key: &Key, id: &str) -> Value {
    eventually("it has finished", async || fleet(api, key, id).await["finishedAt"].is_string()).await;
    fleet(api, key, id).await
}

/// A fleet of so many members that have succeeded: its id.
pub(crate) async fn ended(api: &Api, key: &Key, members: usize) -> String {
    let id = created(api, key, &body(&vec!["result 1"; members])).await;
    finished(api, key, &id).await;
    id
}

#[tokio::test]
async fn a_fleet_is_created_runs_gives_its_results_and_ends() {
    let api = Api::start().await;
    let key = api.owner().await;
    let mut asked = body(&["result 1", "result {\"a\": 1.50}", "exit 3"]);
    asked["labels"] = json!({ "team": "search" });
    let id = created(&api, &key, &asked).await;
    let fleet = finished(&api, &key, &id).await;
    assert_eq!((&fleet["phase"], &fleet["createdBy"]), (&json!("failed"), &json!(key.id.to_string())));
    assert_eq!(fleet["counts"]["succeeded"], 2);
    assert_eq!((&fleet["counts"]["failed"], &fleet["labels"]["team"]), (&json!(1), &json!("search")));

    let results = api.get(&key, &format!("/v1/fleets/{id}/results")).await;
    let page = results.json();
    assert_eq!(page["items"][0]["result"], 1);
    assert_eq!((&page["items"][2]["exitCode"], &page["items"][2]["result"]), (&json!(3), &Value::Null));
    assert!(String::from_utf8(results.bytes).unwrap().contains(r#""result":{"a":1.50}"#), "as it was given");

    let members = api.get(&key, &format!("/v1/fleets/{id}/members?phase=failed")).await.json();
    assert_eq!(members["items"].as_array().unwrap().len(), 1);
    let session = members["items"][0]["sessionId"].as_str().unwrap();
    assert_eq!(api.get(&key, &format!("/v1/sessions/{session}")).await.json()["outcome"], "failed");
    let audit = api.get(&key, &format!("/v1/sessions/{session}/audit")).await.json();
    assert_eq!((&audit["items"][0]["data"]["fleet"], &audit["items"][0]["data"]["member"]), (&json!(id), &json!(2)));
    let list = api.get(&key, "/v1/fleets?limit=1").await.json();
    assert_eq!(list["items"][0], fleet);
}

#[tokio::test]
async fn each_input_reaches_its_member_as_a_file() {
    let api = Api::start().await;
    let key = api.owner().await;
    let template = program(&["cat input.json"]);
    let asked = json!({"name": "a", "members": {"template": template, "inputs": [{"n": 1.0}, "x"]}});
    let id = created(&api, &key, &asked).await;
    assert_eq!(finished(&api, &key, &id).await["phase"], "succeeded");
    let members = api.get(&key, &format!("/v1/fleets/{id}/members")).await.json();
    for (index, text) in [(0, r#"{"n":1.0}"#), (1, "\"x\"")] {
        let session = members["items"][index]["sessionId"].as_str().unwrap();
        let result = api.get(&key, &format!("/v1/sessions/{session}/result")).await.json();
        assert_eq!(result["stdoutTail"], text);
    }
}

#[tokio::test]
async fn every_fault_is_told_at_once_and_nothing_is_recorded() {
    let api = Api::start().await;
    let key = api.owner().await;
    let answer = create(
        &api,
        &key,
        &json!({
            "name": "", "surplus": 1, "completion": {"quorum": 9},
            "members": [{"code": "1"}, {"code": "1", "limits": {"cpu": 1000}}, {"code": "1", "serviceBindings": ["nobody"]}]
        }),
    )
    .await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.fields(), ["surplus", "name", "completion.quorum", "members[1].limits.cpu"]);
    let unknown =
        json!({"name": "a", "members": {"template": {"code": "1", "serviceBindings": ["nobody"]}, "inputs": [1]}});
    assert_eq!(create(&api, &key, &unknown).await.fields(), ["members.template.serviceBindings[0]"]);
    let own = json!({"code": "1", "files": [{"path": "input.json", "content": ""}]});
    let own = create(&api, &key, &json!({"name": "a", "members": {"template": own, "inputs": [1]}})).await;
    assert_eq!(own.fields(), ["members.template.files"]);
    let image =
        create(&api, &key, &json!({"name": "a", "members": [{"code": "1"}, {"code": "1", "image": "moon"}]})).await;
    image.problem("not_enforceable");
    assert_eq!(image.fields(), ["members[1].image"]);
    for text in ["", "[]x", "{\"name\": \"a\", \"name\": \"b\"}"] {
        let answer = api.send(request(Method::POST, "/v1/fleets", Some(&key), text.to_owned().into())).await;
        answer.problem("malformed_json");
    }
    assert_eq!(api.get(&key, "/v1/fleets").await.json()["items"], json!([]));
    assert_eq!(api.get(&key, "/v1/sessions").await.json()["items"], json!([]));
}

#[tokio::test]
async fn a_body_has_a_limit_of_its_own_and_a_fleet_too() {
    let api = Builder::default().settings(|settings| settings.fleet_body_limit = 3 << 20).start().await;
    let key = api.owner().await;
    let of =
        |inputs: Vec<String>| json!({"name": "a", "members": {"template": program(&["exit 0"]), "inputs": inputs}});
    // More than a session's body may have.
    let fits = of(vec!["x".repeat(200_000); 12]);
    assert_eq!(create(&api, &key, &fits).await.status, 201);
    create(&api, &key, &of(vec!["x".repeat(200_000); 16])).await.problem("body_too_large");
    let many = json!({"name": "a", "members": {"template": {"code": "1"}, "inputs": vec![0; 10_001]}});
    assert_eq!(create(&api, &key, &many).await.fields(), ["members.inputs"]);
}

#[tokio::test]
async fn the_same_key_gives_the_same_fleet_and_another_request_is_a_conflict() {
    let api = Api::start().await;
    let key = api.owner().await;
    let send = async |body: &Value| {
        let mut asked = request(Method::POST, "/v1/fleets", Some(&key), body.to_string().into());
        asked.headers_mut().insert("idempotency-key", HeaderValue::from_static("once"));
        api.send(asked).await
    };
    let first = send(&body(&["result 1"])).await;
    let again = send(&body(&["result 1"])).await;
    assert_eq!((first.status, again.status), (http::StatusCode::CREATED, http::StatusCode::CREATED));
    assert_eq!(first.json()["id"], again.json()["id"]);
    send(&body(&["result 2"])).await.problem("idempotency_conflict");
    assert_eq!(api.get(&key, "/v1/fleets").await.json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_deletion_ends_what_runs_and_skips_what_waits() {
    let config = Config { max_concurrency: 2, ..Config::default() };
    let api = Builder { config, ..Builder::default() }.start().await;
    let key = api.owner().await;
    let id = created(&api, &key, &body(&["hang"; 5])).await;
    eventually("two run", async || fleet(&api, &key, &id).await["counts"]["running"] == 2).await;
    let path = format!("/v1/fleets/{id}");
    let ended = api.send(request(Method::DELETE, &path, Some(&key), Body::empty())).await;
    assert_eq!(ended.status, 200);
    let fleet = ended.json();
    assert_eq!((&fleet["phase"], &fleet["reason"]), (&json!("killed"), &json!("cancelled")));
    assert_eq!((&fleet["counts"]["killed"], &fleet["counts"]["skipped"]), (&json!(2), &json!(3)));
    let again = api.send(request(Method::DELETE, &path, Some(&key), Body::empty())).await;
    assert_eq!(again.json(), fleet);
    let skipped = api.get(&key, &format!("{path}/members?phase=skipped&limit=2")).await.json();
    assert_eq!(skipped["items"][0]["reason"], "cancelled");
    assert!(skipped["items"][0].get("sessionId").is_none());
    let cursor = skipped["nextCursor"].as_str().unwrap();
    let rest = api.get(&key, &format!("{path}/members?phase=skipped&limit=2&cursor={cursor}")).await.json();
    assert_eq!((rest["items"][0]["index"].as_u64(), rest["nextCursor"].as_str()), (Some(4), None));
    // A cursor is of one fleet's list.
    let other = created(&api, &key, &body(&["exit 0"])).await;
    let foreign = api.get(&key, &format!("/v1/fleets/{other}/members?cursor={cursor}")).await;
    assert_eq!(foreign.fields(), ["cursor"]);
}

#[tokio::test]
async fn one_stream_tells_of_all_members_and_goes_on_where_it_was() {
    let api = Api::start().await;
    let key = api.owner().await;
    let id = created(&api, &key, &body(&["result 1", "result 2", "exit 1"])).await;
    let stream = async |after: Option<u64>| {
        let path = format!("/v1/fleets/{id}/stream");
        let mut asked = request(Method::GET, &path, Some(&key), Body::empty());
        if let Some(after) = after {
            asked.headers_mut().insert("last-event-id", HeaderValue::from(after));
        }
        api.send(asked).await
    };
    let read = |answer: &Answer| {
        let text = String::from_utf8(answer.bytes.clone()).unwrap();
        let blocks = text.split("\n\n").filter(|block| block.starts_with("id:")).map(|block| {
            let [id, kind, data] = block.lines().collect::<Vec<_>>()[..] else { panic!("{block:?}") };
            let data: Value = serde_json::from_str(&data[6..]).unwrap();
            (id[4..].parse::<u64>().unwrap(), kind[7..].to_owned(), data)
        });
        blocks.collect::<Vec<_>>()
    };
    let frames = read(&stream(None).await);
    assert!(frames.is_sorted_by(|one, other| one.0 < other.0), "{frames:?}");
    let (last, kind, data) = frames.last().unwrap();
    assert_eq!((kind.as_str(), &data["phase"]), ("end", &json!("failed")));
    let progress = &frames[frames.len() - 2];
    assert_eq!((progress.1.as_str(), &progress.2["counts"]["succeeded"]), ("progress", &json!(2)));
    for index in 0..3 {
        let mut of = frames.iter().filter(|(_, kind, data)| kind == "member" && data["index"] == index);
        assert!(of.next_back().unwrap().2["finishedAt"].is_string(), "{frames:?}");
    }
    assert_eq!(stream(Some(*last)).await.status, 204);
    // The store's stream goes on in the middle as well.
    let stored = read(&stream(None).await);
    let cut = stored[1].0;
    assert_eq!(read(&stream(Some(cut)).await), stored[2..]);
}
