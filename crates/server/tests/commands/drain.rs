//! What a signal does to a server with sessions under way.

use std::time::Instant;

use client::{Client, Retry};
use futures::StreamExt;
use wire::{CreateSession, ErrorCode, FaultCode, HealthStatus, Outcome, StreamFrame};

use crate::place::Place;

fn program(code: &str) -> CreateSession {
    CreateSession { code: Some(code.into()), ..CreateSession::default() }
}

/// Creates a session, and reads its stream until the program has written something.
async fn started(client: &Client, code: &str) -> client::FrameStream {
    let created = client.create(&program(code)).await.unwrap();
    let mut frames = client.stream(created.id);
    while !matches!(frames.next().await, Some(Ok((_, StreamFrame::Stdout(_))))) {}
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_lets_running_sessions_finish_and_takes_no_others() {
    let place = Place::new();
    let mut server = place.serve(&["--profile", "dev", "--backend", "simulator", "--drain-seconds", "30"]);
    let client = server.client(None).with_retry(Retry::NEVER);
    let mut frames = started(&client, "# sim: stdout a\n# sim: sleep 1500ms\n# sim: stdout b\n# sim: result 7").await;
    server.signal("TERM");
    server.says("stopping");

    // Reads go on, creations do not, and nothing pretends to be ready.
    let refused = client.create(&program("# sim: exit 0")).await.unwrap_err();
    assert_eq!(refused.problem().unwrap().code, ErrorCode::Unavailable);
    assert_eq!(client.readiness().await.unwrap().status, HealthStatus::Unavailable);
    assert_eq!(client.health().await.unwrap().status, HealthStatus::Ok);
    let (mut result, mut ended) = (None, None);
    while let Some(frame) = frames.next().await {
        match frame.unwrap().1 {
            StreamFrame::Result(arrived) => result = arrived.value(),
            StreamFrame::End(end) => ended = Some(end.outcome),
            StreamFrame::Audit(_)
            | StreamFrame::Phase(_)
            | StreamFrame::Turn(_)
            | StreamFrame::Stdout(_)
            | StreamFrame::Stderr(_)
            | StreamFrame::Gap(_) => {}
        }
    }
    assert_eq!((result, ended), (Some(7.into()), Some(Outcome::Succeeded)));
    assert_eq!(server.left(), 0);
    assert!(server.log().contains("nothing is left"));
    assert_eq!(place.run(&["audit", "verify"]).code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_finish_in_time_is_ended_and_told_truthfully() {
    let place = Place::new();
    let mut server = place.serve(&["--profile", "dev", "--backend", "simulator", "--drain-seconds", "0"]);
    let client = server.client(None);
    let mut frames = started(&client, "# sim: stdout a\n# sim: hang").await;
    server.signal("INT");
    let mut fault = None;
    while let Some(frame) = frames.next().await {
        if let StreamFrame::Result(result) = frame.unwrap().1 {
            fault = result.fault;
        }
    }
    assert_eq!(fault.unwrap().code, FaultCode::ServerDrained);
    assert_eq!(server.left(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_waits_for_nobody() {
    let place = Place::new();
    let mut server = place.serve(&["--profile", "dev", "--backend", "simulator", "--drain-seconds", "3600"]);
    let client = server.client(None);
    let _frames = started(&client, "# sim: stdout a\n# sim: hang").await;
    let began = Instant::now();
    server.signal("TERM");
    server.says("stopping");
    server.signal("TERM");
    assert_eq!(server.left(), 0);
    assert!(began.elapsed() < crate::place::PATIENCE);
    assert!(server.log().contains("a second signal: running sessions are ended"));
}
