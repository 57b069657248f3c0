//! Server-sent events: order, resuming, heartbeats, and readers who lose their right to read.

use std::time::Duration;

use axum::body::Body;
use engine::Config;
use http::{HeaderValue, Method};
use http_body_util::BodyExt;
use model::access::Subject;
use tower::ServiceExt;
use wire::{Role, Scope, StreamFrame};

use crate::harness::{Answer, Api, Builder, Key, eventually, request, within};

/// An event as it stands in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    id: u64,
    kind: String,
    data: String,
}

fn events(text: &str) -> Vec<Event> {
    let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
    let blocks = whole.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':'));
    blocks
        .map(|block| {
            let lines: Vec<_> = block.lines().collect();
            let [id, event, data] = lines.as_slice() else { panic!("not an event: {block:?}") };
            Event {
                id: id.strip_prefix("id: ").unwrap().parse().unwrap(),
                kind: event.strip_prefix("event: ").unwrap().to_owned(),
                data: data.strip_prefix("data: ").unwrap().to_owned(),
            }
        })
        .collect()
}

async fn stream(api: &Api, key: &Key, id: &str, after: Option<&str>) -> Answer {
    let mut asked = request(Method::GET, &format!("/v1/sessions/{id}/stream"), Some(key), Body::empty());
    if let Some(after) = after {
        asked.headers_mut().insert("last-event-id", HeaderValue::from_str(after).unwrap());
    }
    api.send(asked).await
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.bytes.clone()).unwrap()
}

/// The workload's stdout as its frames carry it.
fn stdout(events: &[Event]) -> String {
    let chunks = events.iter().filter(|event| event.kind == "stdout");
    chunks
        .map(|event| match StreamFrame::parse(&event.kind, &event.data).unwrap().unwrap() {
            StreamFrame::Stdout(chunk) => chunk.text,
            other @ (StreamFrame::Result(_)
            | StreamFrame::Audit(_)
            | StreamFrame::Phase(_)
            | StreamFrame::Turn(_)
            | StreamFrame::Stderr(_)
            | StreamFrame::Gap(_)
            | StreamFrame::End(_)) => panic!("{other:?}"),
        })
        .collect()
}

const CHATTY: &[&str] = &[
    "stdout one\\n",
    "sleep 2ms",
    "stderr oops\\n",
    "sleep 2ms",
    "stdout zwei: \\xc3\\xa4\\n",
    "sleep 2ms",
    "stdout id: 99\\n\\ndata: forged\\n\\n",
    "result {\"n\": 1}",
    "exit 0",
];
const SPOKEN: &str = "one\nzwei: ä\nid: 99\n\ndata: forged\n\n";

#[tokio::test]
async fn a_stream_has_every_frame_in_order_and_ends_with_end() {
    let api = Api::start().await;
    let key = api.owner().await;
    let id = api.ended_session(&key, CHATTY).await;
    let answer = stream(&api, &key, &id, None).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-accel-buffering"), "no");
    let events = events(&text(&answer));
    assert!(events.windows(2).all(|pair| pair[0].id < pair[1].id), "{events:#?}");
    assert_eq!(stdout(&events), SPOKEN);
    assert_eq!(events.last().unwrap().kind, "end");
    for kind in ["phase", "stdout", "stderr", "audit", "result", "end"] {
        assert!(events.iter().any(|event| event.kind == kind), "no {kind} in {events:#?}");
    }
}

#[tokio::test]
async fn a_stream_cut_at_any_byte_goes_on_where_it_was() {
    let api = Api::start().await;
    let key = api.owner().await;
    let id = api.ended_session(&key, CHATTY).await;
    let whole = text(&stream(&api, &key, &id, None).await);
    let all = events(&whole);
    for cut in (0..whole.len()).filter(|cut| whole.is_char_boundary(*cut)).step_by(7) {
        let mut seen = events(&whole[..cut]);
        let last = seen.last().map(|event| event.id.to_string());
        let rest = stream(&api, &key, &id, last.as_deref()).await;
        seen.extend(events(&text(&rest)));
        assert_eq!(seen, all, "cut at byte {cut}");
    }
    for (at, event) in all.iter().enumerate() {
        let rest = stream(&api, &key, &id, Some(&event.id.to_string())).await;
        assert_eq!(events(&text(&rest)), all[at + 1..], "cut behind frame {}", event.id);
    }
}

#[tokio::test]
async fn a_stream_at_its_end_answers_that_nothing_follows() {
    let api = Api::start().await;
    let key = api.owner().await;
    let id = api.ended_session(&key, &["exit 0"]).await;
    let last = events(&text(&stream(&api, &key, &id, None).await)).last().unwrap().id.to_string();
    let answer = stream(&api, &key, &id, Some(&last)).await;
    assert_eq!((answer.status.as_u16(), answer.bytes.len()), (204, 0));
}

#[tokio::test]
async fn audit_events_are_for_callers_who_may_read_them() {
    let api = Api::start().await;
    let key = api.owner().await;
    let narrowed = api.key(api.org, Role::Viewer, Some(vec![Scope::SessionsRead])).await;
    let id = api.ended_session(&key, CHATTY).await;
    let all = events(&text(&stream(&api, &key, &id, None).await));
    let seen = events(&text(&stream(&api, &narrowed, &id, None).await));
    let without: Vec<_> = all.iter().filter(|event| event.kind != "audit").cloned().collect();
    assert!(without.len() < all.len());
    assert_eq!(seen, without);
    let last = seen.last().unwrap().id.to_string();
    assert_eq!(stream(&api, &narrowed, &id, Some(&last)).await.status, 204);
}

#[tokio::test]
async fn the_end_is_the_end_of_a_session_that_is_no_longer_held_too() {
    let api = Builder { config: Config { replay_bytes: 1, ..Config::default() }, ..Builder::default() }.start().await;
    let key = api.owner().await;
    let id = api.ended_session(&key, &["output 100000", "exit 0"]).await;
    // Nothing is kept but the session that finished last.
    api.ended_session(&key, &["exit 0"]).await;
    let all = events(&text(&stream(&api, &key, &id, None).await));
    let [.., gap, stdout, _phase, _result, end] = all.as_slice() else { panic!("{all:#?}") };
    assert_eq!((gap.kind.as_str(), stdout.kind.as_str(), end.kind.as_str()), ("gap", "stdout", "end"));
    let StreamFrame::Stdout(chunk) = StreamFrame::parse(&stdout.kind, &stdout.data).unwrap().unwrap() else { panic!() };
    assert_eq!(gap.data, format!("{{\"droppedBytes\":{}}}", chunk.offset));
    assert_eq!(chunk.offset + chunk.text.len() as u64, 100_000);
    let mut after = stdout.id;
    for rest in [3, 0] {
        let answer = stream(&api, &key, &id, Some(&after.to_string())).await;
        assert_eq!(answer.status, if rest > 0 { 200 } else { 204 });
        let events = events(&text(&answer));
        assert_eq!(events.len(), rest, "{events:#?}");
        after = events.last().map_or(after, |event| event.id);
    }
}

#[tokio::test]
async fn a_reader_cut_off_in_the_middle_of_a_run_misses_nothing() {
    let api = Api::start().await;
    let key = api.owner().await;
    let lines: Vec<_> = (0..40).map(|n| format!("stdout line {n}\\n")).collect();
    let script: Vec<_> = lines.iter().flat_map(|line| [line.as_str(), "sleep 3ms"]).collect();
    let id = api.session(&key, &script).await;
    let mut seen: Vec<Event> = Vec::new();
    let mut readers = 0;
    while seen.last().is_none_or(|event| event.kind != "end") {
        readers += 1;
        let path = format!("/v1/sessions/{id}/stream?lastEventId={}", seen.last().map_or(0, |event| event.id));
        let asked = request(Method::GET, &path, Some(&key), Body::empty());
        let mut body = api.router.clone().oneshot(asked).await.unwrap().into_body();
        let (mut read, before) = (String::new(), seen.len());
        // Some frames, then gone.
        while seen.len() < before + 5 {
            let Some(frame) = within("a frame", body.frame()).await else { break };
            read.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
            seen.truncate(before);
            seen.extend(events(&read));
        }
    }
    assert!(readers > 3, "{readers} readers");
    let expected: String = (0..40).map(|n| format!("line {n}\n")).collect();
    assert_eq!(stdout(&seen), expected);
    assert!(seen.windows(2).all(|pair| pair[0].id < pair[1].id));
}

#[tokio::test]
async fn what_is_no_event_id_is_refused() {
    let api = Api::start().await;
    let key = api.owner().await;
    let id = api.ended_session(&key, &["exit 0"]).await;
    for after in ["", "x", "-1", "1.0", " 1", "0x1", "9007199254740992", "18446744073709551616", "1,2"] {
        let answer = stream(&api, &key, &id, Some(after)).await;
        assert_eq!(answer.status, 400, "{after:?}");
        answer.problem("invalid_request");
        assert_eq!(answer.fields(), ["Last-Event-ID"]);
    }
    assert_eq!(stream(&api, &key, &id, Some("9007199254740991")).await.status, 204);
}

#[tokio::test]
async fn a_stream_with_nothing_to_say_has_a_heartbeat() {
    let api = Builder::default().settings(|settings| settings.heartbeat = Duration::from_millis(20)).start().await;
    let key = api.owner().await;
    let id = api.session(&key, &["sleep 1h"]).await;
    let asked = request(Method::GET, &format!("/v1/sessions/{id}/stream"), Some(&key), Body::empty());
    let mut body = api.router.clone().oneshot(asked).await.unwrap().into_body();
    let mut beats = 0;
    while beats < 3 {
        let frame = within("a heartbeat", body.frame()).await.unwrap().unwrap();
        beats += usize::from(frame.data_ref().unwrap().starts_with(b": "));
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_key_is_revoked() {
    let api = Builder::default().settings(|settings| settings.heartbeat = Duration::from_millis(20)).start().await;
    let (key, other) = (api.owner().await, api.owner().await);
    let id = api.session(&key, &["sleep 1h"]).await;
    let open = async |key: &Key| {
        let asked = request(Method::GET, &format!("/v1/sessions/{id}/stream"), Some(key), Body::empty());
        api.router.clone().oneshot(asked).await.unwrap().into_body()
    };
    let (revoked, mut kept) = (open(&key).await, open(&other).await);
    api.engine.revoke_key(api.org, key.id, Subject::Operator).await.unwrap();
    let read = within("the end of the stream", revoked.collect()).await.unwrap().to_bytes();
    assert!(!String::from_utf8_lossy(&read).contains("event: end"), "cut off, not ended");
    for _ in 0..3 {
        within("a heartbeat", kept.frame()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_slow_reader_whose_key_was_revoked_gets_nothing_that_came_since() {
    let api = Builder::default().settings(|settings| settings.heartbeat = Duration::from_millis(20)).start().await;
    let (key, other) = (api.owner().await, api.owner().await);
    let id = api.session(&key, &["sleep 200ms", "stdout late", "sleep 1h"]).await;
    let asked = request(Method::GET, &format!("/v1/sessions/{id}/stream"), Some(&key), Body::empty());
    let body = api.router.clone().oneshot(asked).await.unwrap().into_body();
    api.engine.revoke_key(api.org, key.id, Subject::Operator).await.unwrap();
    // Not read until the output is there: another reader sees it.
    let asked = request(Method::GET, &format!("/v1/sessions/{id}/stream"), Some(&other), Body::empty());
    let mut witness = api.router.clone().oneshot(asked).await.unwrap().into_body();
    let mut seen = String::new();
    while !seen.contains("late") {
        let frame = within("the output", witness.frame()).await.unwrap().unwrap();
        seen.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    let read = within("the end of the stream", body.collect()).await.unwrap().to_bytes();
    assert!(!String::from_utf8_lossy(&read).contains("late"));
}

#[tokio::test]
async fn a_long_poll_whose_key_is_revoked_meanwhile_gives_no_result() {
    let api = Builder::default().settings(|settings| settings.heartbeat = Duration::from_millis(20)).start().await;
    let (key, other) = (api.owner().await, api.owner().await);
    let id = api.session(&other, &["sleep 300ms", "exit 0"]).await;
    let path = format!("/v1/sessions/{id}/result?waitMs=20000");
    let waiting = api.get(&key, &path);
    let revoking = async {
        eventually("running", async || {
            api.get(&other, &format!("/v1/sessions/{id}")).await.json()["phase"] == "running"
        })
        .await;
        api.engine.revoke_key(api.org, key.id, Subject::Operator).await.unwrap();
    };
    let (answer, ()) = tokio::join!(waiting, revoking);
    assert_eq!(answer.status, 401);
    assert_eq!(api.get(&other, &path).await.status, 200);
}
