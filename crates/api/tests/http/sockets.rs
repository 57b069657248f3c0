//! The server over TCP, with clients that do not behave.

use std::{io::ErrorKind, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::harness::{Api, Builder, Listening, program, within};

async fn connect(server: &Listening) -> TcpStream {
    TcpStream::connect(server.address).await.unwrap()
}

/// Everything until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match within("the server's close", stream.read_to_end(&mut bytes)).await {
        Ok(_) => {}
        Err(error) => assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hasty() -> Builder {
    Builder::default().settings(|settings| {
        settings.header_timeout = Duration::from_millis(200);
        settings.idle_timeout = Duration::from_millis(400);
        settings.body_timeout = Duration::from_millis(200);
        settings.drain_timeout = Duration::from_millis(200);
    })
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_head_is_cut_off() {
    let api = hasty().start().await;
    let server = api.listen().await;
    for beginning in ["", "G", "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ", "PRI * HTTP/2.0\r\n", "\r\n\r\n"] {
        let mut stream = connect(&server).await;
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(!answer.contains(" 200 "), "{beginning:?}: {answer}");
    }
}

#[tokio::test]
async fn a_client_that_drips_its_head_is_cut_off_too() {
    let api = hasty().start().await;
    let server = api.listen().await;
    let mut stream = connect(&server).await;
    let dripping = async {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n").await?;
        loop {
            stream.write_all(b"X-Drip: y\r\n").await?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let ended: std::io::Result<()> = within("the cut", dripping).await;
    assert!(ended.is_err());
}

#[tokio::test]
async fn a_connection_that_is_idle_is_closed_and_one_in_use_is_not() {
    let api = hasty().start().await;
    let key = api.owner().await;
    let id = api.session(&key, &["sleep 1500ms", "exit 0"]).await;
    let server = api.listen().await;
    let mut idle = connect(&server).await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(rest(&mut idle).await.starts_with("HTTP/1.1 200"));
    let mut poll = connect(&server).await;
    let asked = format!(
        "GET /v1/sessions/{id}/result?waitMs=20000 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
        key.text
    );
    poll.write_all(asked.as_bytes()).await.unwrap();
    assert!(rest(&mut poll).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed() {
    let api = hasty().start().await;
    let server = api.listen().await;
    let mut stream = connect(&server).await;
    // The preface and an empty SETTINGS frame: a whole handshake, and no request.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    rest(&mut stream).await;
}

#[tokio::test]
async fn an_http2_peer_that_asks_for_nothing_of_its_answer_is_cut_off() {
    let mut builder = hasty();
    builder.settings.stall_timeout = Duration::from_millis(200);
    builder.settings.heartbeat = Duration::from_millis(50);
    let api = builder.start().await;
    let server = api.listen().await;
    let mut stream = connect(&server).await;
    // The preface, SETTINGS with INITIAL_WINDOW_SIZE = 0, and HEADERS: GET http / with the path /healthz.
    let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";
    let headers = b"\0\0\x0f\x01\x05\0\0\0\x01\x82\x86\x41\x01x\x04\x08/healthz";
    let opening = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), settings, headers].concat();
    stream.write_all(&opening).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.contains("\u{1}\u{4}\0\0\0\u{1}"), "no HEADERS frame: {answer:?}");
    assert!(!answer.contains("\"status\""), "a body that nobody asked for: {answer:?}");
}

#[tokio::test]
async fn an_http2_stream_that_is_read_outlives_its_silences() {
    let mut builder = hasty();
    builder.settings.stall_timeout = Duration::from_millis(200);
    builder.settings.heartbeat = Duration::from_millis(50);
    let api = builder.start().await;
    let key = api.owner().await;
    let id = api.session(&key, &["sleep 1s", "exit 0"]).await;
    let server = api.listen().await;
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let path = server.url(&format!("/v1/sessions/{id}/stream"));
    let answer = client.get(path).bearer_auth(&key.text).send().await.unwrap();
    let text = within("the whole stream", answer.text()).await.unwrap();
    assert!(text.contains("event: end"), "{text}");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_a_timeout() {
    let api = hasty().start().await;
    let key = api.owner().await;
    let server = api.listen().await;
    let mut stream = connect(&server).await;
    let head = format!(
        "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{{",
        key.text
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"code\":\"timeout\""), "{answer}");
}

#[tokio::test]
async fn a_client_that_reads_only_after_it_has_sent_everything_still_reads_why_it_was_refused() {
    let api = Api::start().await;
    let key = api.owner().await;
    let server = api.listen().await;
    let size = 24 * 1024 * 1024;
    for (token, status) in [(key.text.as_str(), "413"), ("ek_", "401")] {
        let mut stream = connect(&server).await;
        let head = format!(
            "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        within("the body to be taken", stream.write_all(&vec![b' '; size])).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

#[tokio::test]
async fn heads_are_bounded_in_size_and_number() {
    let api = Api::start().await;
    let server = api.listen().await;
    let long = format!("X-Long: {}\r\n", "x".repeat(200 * 1024));
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    for (name, headers) in [("long", long), ("many", many)] {
        let mut stream = connect(&server).await;
        let head = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        // The server may close before it has taken everything.
        let _ = stream.write_all(head.as_bytes()).await;
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{name}: {answer}");
    }
    let mut stream = connect(&server).await;
    let target = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(200 * 1024));
    let _ = stream.write_all(target.as_bytes()).await;
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let api = Api::start().await;
    let server = api.listen().await;
    for bytes in
        [&b"\x16\x03\x01\x02\x00\x01"[..], b"GET / HTTP/9.9\r\n\r\n", b"GET /\0 HTTP/1.1\r\n\r\n", b"\0\0\0\0\r\n\r\n"]
    {
        let mut stream = connect(&server).await;
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 505"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn two_lengths_or_a_length_and_chunks_are_refused() {
    let api = Api::start().await;
    let key = api.owner().await;
    let server = api.listen().await;
    for framing in [
        "Content-Length: 12\r\nContent-Length: 0\r\n",
        "Content-Length: 12, 13\r\n",
        "Content-Length: +12\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    ] {
        let mut stream = connect(&server).await;
        let head = format!(
            "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             {framing}\r\n{{\"code\":\"1\"}}",
            key.text
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{framing:?}: {answer}");
    }
    assert_eq!(api.get(&key, "/v1/sessions").await.json()["items"], serde_json::json!([]));
}

#[tokio::test]
async fn a_flood_of_connections_is_bounded_and_passes() {
    let mut builder = hasty();
    builder.settings.max_connections = 8;
    let api = builder.start().await;
    let server = api.listen().await;
    let flood: Vec<_> = futures::future::join_all((0..200).map(|_| connect(&server))).await;
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let with_flood = open();
    assert!(with_flood < 200 + 100, "{with_flood} descriptors: the server took in more than its share");
    let mut honest = connect(&server).await;
    honest.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(rest(&mut honest).await.starts_with("HTTP/1.1 200"));
    drop(flood);
}

#[tokio::test]
async fn one_connection_more_than_the_limit_waits_for_its_turn() {
    let mut builder = Builder::default();
    builder.settings.max_connections = 1;
    let api = builder.start().await;
    let server = api.listen().await;
    let mut first = connect(&server).await;
    first.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut byte = [0];
    within("the first answer", first.read_exact(&mut byte)).await.unwrap();
    let mut second = connect(&server).await;
    second.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(200), second.read_exact(&mut byte)).await;
    assert!(early.is_err(), "the second connection was served beside the first");
    drop(first);
    assert!(rest(&mut second).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_off() {
    let mut builder = Builder::default();
    builder.settings.max_connections = 1;
    builder.settings.stall_timeout = Duration::from_millis(200);
    let api = builder.start().await;
    let key = api.owner().await;
    let mut asked = program(&["output 8MiB", "exit 0"]);
    asked["limits"] = serde_json::json!({ "outputBytes": 16 * 1024 * 1024 });
    let created = api.post(&key, asked.to_string()).await.json();
    let id = created["id"].as_str().unwrap();
    assert_eq!(api.get(&key, &format!("/v1/sessions/{id}/result?waitMs=20000")).await.status, 200);
    let server = api.listen().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stalled = socket.connect(server.address).await.unwrap();
    let head =
        format!("GET /v1/sessions/{id}/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", key.text);
    stalled.write_all(head.as_bytes()).await.unwrap();
    // The only place is taken until the server gives up on the reader that reads nothing.
    let mut next = connect(&server).await;
    next.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(rest(&mut next).await.starts_with("HTTP/1.1 200"));
    assert!(rest(&mut stalled).await.len() < 8 * 1024 * 1024);
}

#[tokio::test]
async fn a_request_that_does_not_end_does_not_hold_up_the_shutdown() {
    let mut builder = hasty();
    builder.settings.body_timeout = Duration::from_mins(10);
    builder.settings.request_timeout = Duration::from_mins(10);
    let api = builder.start().await;
    let key = api.owner().await;
    let server = api.listen().await;
    let mut stream = connect(&server).await;
    let head = format!(
        "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\nExpect: 100-continue\r\n\r\n",
        key.text
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut byte = [0];
    within("100 Continue", stream.read_exact(&mut byte)).await.unwrap();
    server.stop.cancel();
    within("the server's end", server.task).await.unwrap();
}
