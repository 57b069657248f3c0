//! Calls: errors, retries, bounds.

use std::{error::Error, time::Duration};

use client::{Client, ClientError, ListSessions, Retry};
use serde_json::json;
use tokio::net::TcpListener;
use wire::{CreateSession, ErrorCode, HealthStatus};

use crate::script::{Script, Server, answer, header, problem, session_id};

const JSON: &str = "Content-Type: application/json\r\n";

fn session() -> String {
    json!({
        "id": session_id(), "orgId": "org_01890a5d-ac96-774b-bcce-b302099a8057", "createdBy": "dev", "phase": "pending",
        "language": "python", "execMode": "oneshot", "backend": "simulator", "isolation": "simulated", "image": "default",
        "limits": {"cpu": 1.0, "memoryBytes": 1, "wallClockMs": 1, "pids": 1, "diskBytes": 1, "outputBytes": 1},
        "egress": {"mode": "deny_all"}, "serviceBindings": [], "labels": {}, "args": [], "env": {},
        "createdAt": "2026-01-01T00:00:00.000Z",
        "enforcement": {"kernel": "", "egress": "", "cpu": "", "memory": "", "pids": "", "disk": "", "wallClock": ""},
    })
    .to_string()
}

fn program() -> CreateSession {
    CreateSession { code: Some("print(1)".into()), ..CreateSession::default() }
}

#[tokio::test]
async fn a_creation_that_was_refused_for_now_is_repeated_with_the_same_key() {
    let server = Server::playing([
        problem(ErrorCode::Busy, "Retry-After: 0\r\n"),
        problem(ErrorCode::Unavailable, ""),
        Script::Refuse,
        answer("201 Created", JSON, &session()),
    ])
    .await;
    let created = server.client().create(&program()).await.unwrap();
    assert_eq!(created.id, session_id());

    let requests = server.requests();
    let keys: Vec<_> = requests.iter().map(|request| header(request, "idempotency-key").unwrap()).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert!(requests.iter().all(|request| header(request, "authorization") == Some("Bearer ek_test")));
    assert!(requests.iter().all(|request| request.ends_with(&serde_json::to_string(&program()).unwrap())));
}

#[tokio::test]
async fn a_creation_whose_answer_was_cut_is_repeated_with_the_same_key() {
    let cut = "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{\"id\":";
    let server =
        Server::playing([Script::Say(cut.into()), Script::Say(vec![]), answer("201 Created", JSON, &session())]).await;
    server.client().create_with_key(&program(), "mine").await.unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|request| header(request, "idempotency-key") == Some("mine")));
}

#[tokio::test]
async fn the_largest_honest_page_is_read() {
    let mut item: wire::Session = serde_json::from_str(&session()).unwrap();
    item.args = vec!["\u{1}".repeat(64 * 1024)];
    item.env = [("A".to_owned(), "\u{1}".repeat(64 * 1024))].into();
    item.labels = (0..32).map(|n| (format!("{n:063}"), "\"".repeat(256))).collect();
    let page = wire::SessionPage { items: vec![item; 100], next_cursor: None };
    let server = Server::playing([answer("200 OK", JSON, &serde_json::to_string(&page).unwrap())]).await;
    let read = server.client().sessions(&ListSessions::default()).await.unwrap();
    assert_eq!(read.items.len(), 100);
}

#[tokio::test]
async fn two_creations_have_two_keys() {
    let server = Server::playing([answer("201 x", JSON, &session()), answer("201 x", JSON, &session())]).await;
    server.client().create(&program()).await.unwrap();
    server.client().create(&program()).await.unwrap();
    let requests = server.requests();
    assert_ne!(header(&requests[0], "idempotency-key"), header(&requests[1], "idempotency-key"));
}

#[tokio::test]
async fn a_server_that_stays_busy_ends_the_tries() {
    let server = Server::playing((0..20).map(|_| problem(ErrorCode::Busy, ""))).await;
    let error = server.client().create(&program()).await.unwrap_err();
    assert_eq!(error.problem().unwrap().code, ErrorCode::Busy);
    assert_eq!(server.requests().len(), 5);
}

#[tokio::test]
async fn a_server_that_asks_for_an_hour_is_not_waited_for() {
    let server = Server::playing([problem(ErrorCode::Busy, "Retry-After: 3600\r\n")]).await;
    let error = server.client().create(&program()).await.unwrap_err();
    assert_eq!(error.problem().unwrap().code, ErrorCode::Busy);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_given_whole_and_not_repeated() {
    let body = wire::Problem::new(ErrorCode::InvalidRequest, "two fields are wrong")
        .with_errors(vec![wire::FieldError::new("code", "is needed"), wire::FieldError::new("limits.cpu", "too much")]);
    let server =
        Server::playing([answer("400 Bad Request", JSON, &serde_json::to_string(&body).unwrap()), Script::Refuse])
            .await;
    let error = server.client().create(&program()).await.unwrap_err();
    assert_eq!(error.problem(), Some(&body));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn an_answer_of_something_else_is_named_and_made_harmless() {
    let server = Server::playing([answer("502 Bad Gateway", "", "<html>\x1b[2Jproxy")]).await;
    let error = server.client().backends().await.unwrap_err();
    let ClientError::Unexpected { status: 502, excerpt } = &error else { panic!("{error:?}") };
    assert_eq!(excerpt, "<html> [2Jproxy");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::playing([answer("200 OK", JSON, "{}")]).await;
    let to = format!("Location: {}\r\n", elsewhere.client().base_url());
    let server = Server::playing([answer("307 Temporary Redirect", &to, "")]).await;
    let error = server.client().backends().await.unwrap_err();
    assert!(matches!(error, ClientError::Unexpected { status: 307, .. }), "{error:?}");
    assert_eq!(elsewhere.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn an_answer_without_end_is_refused() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n\"".to_vec();
    let server = Server::playing([Script::Flood(head, &[b'x'; 16384])]).await;
    let error = server.client().backends().await.unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_transport_error_without_secrets() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(&base, Some("ek_canary".into())).unwrap().with_retry(Retry::NEVER);
    let error = client.create(&program()).await.unwrap_err();
    assert!(matches!(&error, ClientError::Transport(_)), "{error:?}");
    assert!(error.source().is_some());
    assert!(!format!("{error:?} {}", error.chain()).contains("canary"));
}

#[tokio::test]
async fn a_long_poll_goes_on_until_there_is_a_result() {
    let result = json!({
        "sessionId": session_id(), "outcome": "succeeded", "exitCode": 0, "result": {"a": 1}, "stdoutTail": "",
        "stdoutTruncated": false, "stderrTail": "", "stderrTruncated": false, "artifacts": [],
        "usage": {"cpuMs": 1, "memoryPeakBytes": 1, "wallMs": 1, "egressBytes": 0}, "denials": [],
    });
    let server = Server::playing([
        problem(ErrorCode::NotFinished, ""),
        problem(ErrorCode::NotFinished, ""),
        answer("200 OK", JSON, &result.to_string()),
    ])
    .await;
    let result = server.client().result(session_id(), Duration::from_hours(1)).await.unwrap();
    assert_eq!(result.value(), Some(json!({"a": 1})));
    assert!(server.requests()[0].starts_with(&format!("GET /v1/sessions/{}/result?waitMs=25000 ", session_id())));
}

#[tokio::test]
async fn a_result_that_does_not_come_in_time_is_the_servers_not_finished() {
    let server = Server::playing([problem(ErrorCode::NotFinished, "")]).await;
    let error = server.client().result(session_id(), Duration::from_millis(10)).await.unwrap_err();
    assert_eq!(error.problem().unwrap().code, ErrorCode::NotFinished);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_server_that_is_not_ready_says_why() {
    let body = r#"{"status":"unavailable","reason":"the server is shutting down","backends":[]}"#;
    let server = Server::playing([answer("503 Service Unavailable", JSON, body)]).await;
    let readiness = server.client().readiness().await.unwrap();
    assert_eq!((readiness.status, readiness.backends.len()), (HealthStatus::Unavailable, 0));
}

#[tokio::test]
async fn filters_go_into_the_query_and_cannot_break_out_of_it() {
    let server = Server::playing([answer("200 OK", JSON, r#"{"items":[]}"#)]).await;
    let which = ListSessions {
        cursor: Some("a&limit=9 HTTP/1.1\r\nX: y".into()),
        limit: Some(2),
        phase: Some(wire::Phase::TornDown),
        labels: vec![("team".into(), "a b".into())],
    };
    server.client().sessions(&which).await.unwrap();
    let requests = server.requests();
    assert_eq!(
        requests[0].lines().next().unwrap(),
        "GET /v1/sessions?cursor=a%26limit%3D9+HTTP%2F1.1%0D%0AX%3A+y&limit=2&phase=torn_down&label=team%3Aa+b HTTP/1.1"
    );
}
