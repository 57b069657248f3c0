//! Bodies on their way, over the protocols that services speak.

use std::time::Duration;

use futures::stream;
use http::Version;
use http_body_util::StreamBody;
use hyper::{body::Frame, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{
    upstream::{Upstream, text},
    *,
};

fn trusting(upstream: &Upstream) -> Value {
    json!({ "name": "svc", "kind": {"type": "bearer"}, "upstream": {"url": upstream.url, "caPem": upstream.ca_pem} })
}

#[tokio::test]
async fn http2_is_spoken_over_tls_and_one_connection_is_used_again() {
    let upstream = Upstream::over_tls(|_| text("ok")).await;
    let session = Session::with(&[(trusting(&upstream), secret(SECRET))]);
    for _ in 0..5 {
        assert_eq!(session.get("svc", "/").await.body, "ok");
    }
    assert_eq!((upstream.last().version, upstream.connections()), (Version::HTTP_2, 1));
    assert_eq!(upstream.last().headers["authorization"], format!("Bearer {SECRET}"));
    let plain = Upstream::answering(|_| text("ok")).await;
    let session = Session::with(&[(bearer(&plain.url), secret(SECRET))]);
    for _ in 0..5 {
        assert_eq!(session.get("svc", "/").await.body, "ok");
    }
    assert_eq!((plain.last().version, plain.connections()), (Version::HTTP_11, 1));
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_ends_the_call_before_the_secret_leaves() {
    let upstream = Upstream::over_tls(|_| text("ok")).await;
    let other = Upstream::over_tls(|_| text("ok")).await;
    for spec in [
        bearer(&upstream.url),
        json!({ "name": "svc", "kind": {"type": "bearer"}, "upstream": {"url": upstream.url, "caPem": other.ca_pem} }),
        json!({ "name": "svc", "kind": {"type": "bearer"}, "upstream": {"url": upstream.url, "caPem": "none"} }),
    ] {
        let session = Session::with(&[(spec, secret(SECRET))]);
        let detail = session.get("svc", "/").await.problem(502, "binding_upstream");
        assert!(detail.contains("certificate"), "{detail}");
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn large_bodies_pass_both_ways_as_they_are() {
    let upstream = Upstream::over_tls(|seen| text(seen.body.clone())).await;
    let session = Session::with(&[(trusting(&upstream), secret(SECRET))]);
    let body: Vec<u8> = (0..8u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let answer = session.send("svc", Request::post("/").body(Full::from(body.clone())).unwrap()).await;
    assert!(answer.is_whole && answer.body == body);
}

#[tokio::test]
async fn events_pass_one_by_one_while_the_request_still_comes() {
    // An answer that repeats what comes, while it comes.
    let upstream = Upstream::at_once(|request| {
        Box::pin(async move {
            let mut response = Response::new(request.into_body().map_err(std::io::Error::other).boxed());
            response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
            response
        })
    })
    .await;
    let session = Session::with(&[(bearer(&upstream.url), secret(SECRET))]);
    let (say, said) = mpsc::channel::<Bytes>(1);
    let body = StreamBody::new(stream::unfold(said, |mut said| async move {
        said.recv().await.map(|bytes| (Ok::<_, std::io::Error>(Frame::data(bytes)), said))
    }));
    let asking = session.bindings.serve("svc", Request::post("/").body(body).unwrap());
    let mut response = timeout(Duration::from_secs(10), asking).await.expect("the head comes at once");
    for event in ["data: one\n\n", "data: two\n\n", "data: three\n\n"] {
        say.send(Bytes::from(event)).await.unwrap();
        let frame = timeout(Duration::from_secs(10), response.body_mut().frame()).await.expect("events come at once");
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), event);
    }
    drop(say);
    assert!(response.body_mut().frame().await.is_none());
}

#[tokio::test]
async fn a_cut_answer_ends_the_connection_of_the_workload() {
    let upstream = Upstream::answering(|seen| {
        let given = seen.headers["authorization"].to_str().unwrap();
        text(format!("{}{given}", "x".repeat(1 << 20)))
    })
    .await;
    let session = Session::with(&[(bearer(&upstream.url), secret(SECRET))]);
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let bindings = session.bindings.clone();
    tokio::spawn(async move {
        let service = service_fn(move |request| {
            let bindings = bindings.clone();
            async move { Ok::<_, std::io::Error>(bindings.serve("svc", request).await) }
        });
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service).await
    });
    client.write_all(b"GET / HTTP/1.1\r\nhost: svc.enclave.internal\r\n\r\n").await.unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).await.unwrap();
    let all = String::from_utf8(all).unwrap();
    assert!(all.starts_with("HTTP/1.1 200 OK\r\n"));
    let body = all.split_once("\r\n\r\n").unwrap().1;
    // It said how long it would be, and is shorter.
    assert!(body.len() < (1 << 20) + 8 && body.bytes().rev().take(64).all(|byte| byte == b'x'), "{}", body.len());
}

#[tokio::test]
async fn head_and_empty_answers_keep_their_headers() {
    let upstream = Upstream::answering(|seen| {
        let mut response = text("");
        response.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
        response.headers_mut().insert("alt-svc", "h3=\":443\"".parse().unwrap());
        response.headers_mut().insert("etag", "1".parse().unwrap());
        if seen.method == "GET" {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        response
    })
    .await;
    let session = Session::with(&[(bearer(&upstream.url), secret(SECRET))]);
    let head = session.send("svc", Request::head("/").body(Full::default()).unwrap()).await;
    assert_eq!((head.status.as_u16(), head.is_whole, head.headers.get("alt-svc")), (200, true, None));
    let unchanged = session.get("svc", "/").await;
    assert_eq!((unchanged.status.as_u16(), &unchanged.headers["etag"]), (304, &"1".parse().unwrap()));
    // A body of no bytes says so.
    let post = Request::post("/").header("content-length", "0").body(Full::default()).unwrap();
    session.send("svc", post).await;
    assert_eq!(upstream.last().headers["content-length"], "0");
}
