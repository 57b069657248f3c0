//! Streams: cuts, doubles, garbage, bounds.

use client::ClientError;
use futures::StreamExt;
use serde_json::json;
use wire::{ErrorCode, SessionResult, StreamFrame};

use crate::script::{Script, Server, header, problem, session_id, stream, stream_bytes};

fn stdout(seq: u64, text: &str, offset: usize) -> String {
    format!("id: {seq}\nevent: stdout\ndata: {{\"text\":\"{text}\",\"offset\":{offset}}}\n\n")
}

fn end(seq: u64) -> String {
    format!("id: {seq}\nevent: end\ndata: {{\"outcome\":\"succeeded\"}}\n\n")
}

/// Everything that comes: numbers and text of the frames, and the error, if one ended it.
async fn read(server: &Server) -> (Vec<u64>, String, Option<ClientError>) {
    let (mut numbers, mut text) = (Vec::new(), String::new());
    let mut frames = server.client().stream(session_id());
    while let Some(item) = frames.next().await {
        match item {
            Ok((seq, frame)) => {
                numbers.push(seq);
                if let StreamFrame::Stdout(chunk) = frame {
                    assert_eq!(chunk.offset, text.len() as u64);
                    text.push_str(&chunk.text);
                }
            }
            Err(error) => {
                assert!(frames.next().await.is_none(), "an error is the last item");
                return (numbers, text, Some(error));
            }
        }
    }
    (numbers, text, None)
}

#[tokio::test]
async fn a_stream_cut_at_every_byte_gives_every_frame_once() {
    let whole: String = (1_u8..=4).map(|n| stdout(n.into(), "ab", usize::from(n - 1) * 2)).chain([end(5)]).collect();
    for cut in 0..whole.len() {
        // The second connection starts where a server that honours Last-Event-ID would not: at the beginning.
        let server = Server::playing([stream(&whole[..cut]), stream(&whole)]).await;
        let (numbers, text, error) = read(&server).await;
        assert_eq!((numbers.as_slice(), text.as_str()), ([1, 2, 3, 4, 5].as_slice(), "abababab"), "cut at {cut}");
        assert!(error.is_none(), "cut at {cut}: {error:?}");
    }
}

#[tokio::test]
async fn a_returning_reader_says_where_it_left() {
    let server = Server::playing([
        stream(&stdout(1, "a", 0)),
        stream(&format!("{}{}", stdout(2, "b", 1), &stdout(3, "c", 2)[..20])),
        stream(&format!(": heartbeat\n\n{}{}", stdout(3, "c", 2), end(4))),
    ])
    .await;
    let (numbers, text, _) = read(&server).await;
    assert_eq!((numbers, text.as_str()), (vec![1, 2, 3, 4], "abc"));
    let requests = server.requests();
    let asked: Vec<_> = requests.iter().map(|request| header(request, "last-event-id")).collect();
    assert_eq!(asked, [None, Some("1"), Some("2")]);
}

#[tokio::test]
async fn a_server_that_is_away_for_a_moment_is_found_again() {
    let server = Server::playing([
        problem(ErrorCode::Unavailable, "Retry-After: 0\r\n"),
        Script::Refuse,
        stream(&stdout(1, "a", 0)),
        Script::Refuse,
        Script::Refuse,
        Script::Refuse,
        stream(&end(2)),
    ])
    .await;
    let (numbers, _, error) = read(&server).await;
    assert_eq!(numbers, [1, 2]);
    assert!(error.is_none(), "{error:?}");
}

#[tokio::test]
async fn a_server_that_only_cuts_ends_the_tries() {
    let server = Server::playing((0..50).map(|_| stream(&stdout(1, "a", 0)))).await;
    let (numbers, _, error) = read(&server).await;
    assert_eq!(numbers, [1]);
    assert!(matches!(error, Some(ClientError::StreamLost { tries: 5, source: None })), "{error:?}");
    assert_eq!(server.requests().len(), 5);
}

#[tokio::test]
async fn a_session_that_is_not_there_is_not_asked_for_again() {
    let server = Server::playing([problem(ErrorCode::NotFound, ""), stream(&end(1))]).await;
    let (_, _, error) = read(&server).await;
    assert_eq!(error.unwrap().problem().unwrap().code, ErrorCode::NotFound);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn the_last_refusal_is_the_source_of_a_lost_stream() {
    let server = Server::playing((0..9).map(|_| problem(ErrorCode::Unavailable, ""))).await;
    let (_, _, error) = read(&server).await;
    let error = error.unwrap();
    assert!(matches!(&error, ClientError::StreamLost { .. }), "{error:?}");
    assert_eq!(error.problem().unwrap().code, ErrorCode::Unavailable);
}

#[tokio::test]
async fn a_line_without_end_is_refused_after_the_frames_before_it() {
    let head = stream_bytes(format!("{}id: 2\ndata: ", stdout(1, "a", 0)).as_bytes());
    let server = Server::playing([Script::Flood(head, &[b'x'; 16384])]).await;
    let (numbers, _, error) = read(&server).await;
    assert_eq!(numbers, [1]);
    assert!(matches!(error, Some(ClientError::TooLarge { .. })), "{error:?}");
}

#[tokio::test]
async fn frames_that_cannot_be_read_end_the_stream() {
    for garbage in [
        "id: 2\nevent: stdout\ndata: {\"text\":\n\n",
        "id: 2\nevent: stdout\ndata: {}\n\n",
        "id: x\nevent: end\ndata: {\"outcome\":\"succeeded\"}\n\n",
        "event: end\ndata: {\"outcome\":\"succeeded\"}\n\n",
        "id: 2\nevent: end\ndata: {\"outcome\":\"won\"}\n\n",
    ] {
        let server = Server::playing([stream(&format!("{}{garbage}", stdout(1, "a", 0))), stream(&end(3))]).await;
        let (numbers, _, error) = read(&server).await;
        assert_eq!(numbers, [1], "{garbage:?}");
        assert!(matches!(error, Some(ClientError::Decode { .. })), "{garbage:?}: {error:?}");
    }
}

#[tokio::test]
async fn bytes_that_are_not_text_end_the_stream() {
    let server = Server::playing([Script::Say(stream_bytes(b"id: 1\nevent: stdout\ndata: \xff\xfe\n\n"))]).await;
    let (_, _, error) = read(&server).await;
    assert!(matches!(error, Some(ClientError::Decode { .. })), "{error:?}");
}

#[tokio::test]
async fn kinds_of_a_later_version_are_passed_over() {
    let server = Server::playing([stream(&format!("id: 1\nevent: sparkle\ndata: whatever\n\n{}", end(2)))]).await;
    let (numbers, _, error) = read(&server).await;
    assert_eq!(numbers, [2]);
    assert!(error.is_none(), "{error:?}");
}

#[tokio::test]
async fn nothing_is_read_behind_the_end() {
    let server =
        Server::playing([Script::SayAndHold(stream_bytes(format!("{}{}", end(1), stdout(2, "late", 0)).as_bytes()))])
            .await;
    let (numbers, text, error) = read(&server).await;
    assert_eq!((numbers, text.as_str()), (vec![1], ""));
    assert!(error.is_none(), "{error:?}");
}

#[tokio::test]
async fn a_stream_at_its_end_is_no_error() {
    let server = Server::playing([stream(&stdout(1, "a", 0)), crate::script::answer("204 No Content", "", "")]).await;
    let (numbers, _, error) = read(&server).await;
    assert_eq!(numbers, [1]);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn an_answer_that_is_no_stream_is_named() {
    let server = Server::playing([crate::script::answer("200 OK", "Content-Type: text/html\r\n", "<p>")]).await;
    let (_, _, error) = read(&server).await;
    assert!(matches!(error, Some(ClientError::Unexpected { status: 200, .. })), "{error:?}");
}

#[tokio::test]
async fn the_largest_honest_result_is_read() {
    let control = "\u{1}".repeat(64 * 1024);
    let result = SessionResult {
        session_id: session_id(),
        outcome: wire::Outcome::Succeeded,
        kill_reason: None,
        fault: None,
        exit_code: Some(0),
        result: Some(json!("\"".repeat(1024 * 1024 / 2)).into()),
        stdout_tail: control.clone(),
        stdout_truncated: true,
        stdout_tail_offset: 1,
        stderr_tail: control,
        stderr_truncated: true,
        stderr_tail_offset: 1,
        artifacts: vec![],
        artifacts_skipped: vec![],
        usage: wire::Usage::default(),
        denials: vec![],
    };
    let data = serde_json::to_string(&result).unwrap();
    let server = Server::playing([stream(&format!("id: 1\nevent: result\ndata: {data}\n\n{}", end(2)))]).await;
    let frames: Vec<_> = server.client().stream(session_id()).collect().await;
    let Some(Ok((1, StreamFrame::Result(read)))) = frames.into_iter().next() else { panic!("no result") };
    assert_eq!(*read, result);
}
