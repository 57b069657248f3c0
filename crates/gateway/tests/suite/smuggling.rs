//! Requests that one server reads as one and another as two.

use protocol::egress::Opening;
use serde_json::json;

use crate::{
    proxy::problem,
    resolver::Resolver,
    upstream::Upstream,
    world::{Setting, exchange},
};

#[tokio::test]
async fn a_request_that_could_be_framed_in_two_ways_reaches_nobody() {
    let hello = Upstream::hello().await;
    let resolver = Resolver::loopback(&["a.test"]).await;
    let allow = json!([{"domain": "a.test"}]);
    let world = Setting::new(allow, &[hello.port()]).asking(resolver.address).start().await;
    let port = hello.port();
    let smuggled = format!("GET http://a.test:{port}/smuggled HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n");
    let length = smuggled.len();
    for headers in [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n0\r\n\r\n"),
        format!("Content-Length: 0\r\nContent-Length: {length}\r\n\r\n"),
        "Content-Length: 0\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "Content-Length: 0, 0\r\n\r\n".to_owned(),
        "Content-Length: +0\r\n\r\n".to_owned(),
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n".to_owned(),
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n".to_owned(),
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "X: y\r\n Content-Length: 3\r\n\r\n".to_owned(),
        "X: y\nContent-Length: 3\r\n\r\n".to_owned(),
        "X: y\rContent-Length: 3\r\n\r\n".to_owned(),
        "X: a\0b\r\n\r\n".to_owned(),
    ] {
        let request = format!("POST http://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}\r\n{headers}{smuggled}");
        let answer = exchange(&mut world.open(Opening::Http), request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{headers:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{headers:?}: {answer}");
        assert_eq!(problem(&answer)["code"], "malformed_request");
    }
    assert_eq!(hello.heard(), Vec::<String>::new());
    let event = world.denied("not_recognised").await;
    assert_eq!(event.data["detail"], "this request is malformed: both Content-Length and Transfer-Encoding");
}

#[tokio::test]
async fn a_chunk_that_ends_elsewhere_ends_the_connection() {
    let hello = Upstream::hello().await;
    let resolver = Resolver::loopback(&["a.test"]).await;
    let allow = json!([{"domain": "a.test"}]);
    let world = Setting::new(allow, &[hello.port()]).asking(resolver.address).start().await;
    let port = hello.port();
    for body in ["3\r\nabcX\r\n0\r\n\r\n", "3\nabc\r\n0\r\n\r\n", "0x3\r\nabc\r\n0\r\n\r\n", "3;\0\r\nabc\r\n0\r\n\r\n"]
    {
        let request = format!(
            "POST http://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}\r\nTransfer-Encoding: chunked\r\n\r\n{body}\
             GET http://a.test:{port}/smuggled HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n"
        );
        let answer = exchange(&mut world.open(Opening::Http), request.as_bytes()).await;
        assert!(!answer.contains("200 OK"), "{body:?}: {answer}");
    }
    assert_eq!(hello.heard(), Vec::<String>::new());
}

#[tokio::test]
async fn a_head_without_an_end_is_refused() {
    let world = Setting::new(json!([]), &[]).start().await;
    let long = format!("GET http://a.test/ HTTP/1.1\r\nX: {}", "y".repeat(70_000));
    let answer = exchange(&mut world.open(Opening::Http), long.as_bytes()).await;
    assert_eq!(problem(&answer)["detail"], "this request is malformed: a head that is too long");
    let many: String = (0..200).map(|number| format!("x{number}: y\r\n")).collect();
    let answer = world.http(&format!("GET http://a.test/ HTTP/1.1\r\n{many}\r\n")).await;
    assert_eq!(problem(&answer)["detail"], "this request is malformed: too many headers");
    let answer = world.http("\x16\x03\x01\r\n\r\n").await;
    assert_eq!(problem(&answer)["code"], "malformed_request");
}
