//! HTTP proxy clients.

use model::gateway::FromGateway;
use protocol::egress::Opening;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use wire::AuditType;

use crate::{
    resolver::{Resolver, Says, addresses},
    tls::Tls,
    upstream::Upstream,
    world::{Setting, World, exchange, head, to_end},
};

/// The problem document of an answer.
pub(crate) fn problem(answer: &str) -> Value {
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.contains("content-type: application/problem+json"), "{answer}");
    serde_json::from_str(body).expect(body)
}

pub(crate) async fn connect(world: &World, target: &str) -> (tokio::net::UnixStream, String) {
    let mut stream = world.open(Opening::Http);
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).await.unwrap();
    let head = head(&mut stream).await;
    (stream, head)
}

#[tokio::test]
async fn connect_carries_tls_for_the_name_that_was_asked_for() {
    let tls = Tls::hello(&["a.test"]).await;
    let resolver = Resolver::loopback(&["a.test"]).await;
    let allow = json!([{"domain": "a.test", "ports": [tls.port()]}]);
    let world = Setting::new(allow, &[tls.port()]).asking(resolver.address).start().await;
    let (stream, answer) = connect(&world, &format!("A.test:{}", tls.port())).await;
    assert_eq!(answer.lines().next(), Some("HTTP/1.1 200 OK"));
    let event = world.allowed("connect").await;
    assert_eq!(
        event.data,
        json!({
            "destination": format!("a.test:{}", tls.port()), "address": "127.0.0.1", "protocol": "connect",
        })
    );
    assert!(tls.get(stream, "a.test").await.unwrap().ends_with("hello"));
    let said = world.end().await;
    let Some(FromGateway::Done { egress_bytes }) = said.last() else { panic!("no last usage in {said:?}") };
    assert!(*egress_bytes > 1000, "{egress_bytes}");
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_in_words() {
    let resolver = Resolver::loopback(&["pypi.test"]).await;
    let world = Setting::new(json!([]), &[]).asking(resolver.address).start().await;
    let answer = world.http("CONNECT pypi.test:443 HTTP/1.1\r\nHost: pypi.test:443\r\n\r\n").await;
    assert!(
        answer.starts_with(
            "HTTP/1.1 403 egress denied: no entry of egress.allow names pypi.test; \
             allow {\"domain\":\"pypi.test\",\"ports\":[443]}\r\n"
        ),
        "{answer}"
    );
    let problem = problem(&answer);
    assert_eq!(problem["code"], "egress_denied");
    assert_eq!(problem["reason"], "not_allowed");
    assert_eq!(problem["allowedBy"], r#"{"domain":"pypi.test","ports":[443]}"#);
    let event = world.denied("not_allowed").await;
    assert_eq!(event.data["attempted"], "connect tcp pypi.test:443");
    assert_eq!(event.denial.unwrap().allowed_by.as_deref(), problem["allowedBy"].as_str());
    assert_eq!(resolver.asked(), Vec::<String>::new(), "a name off the list left as a query");
}

#[tokio::test]
async fn tls_for_another_name_goes_nowhere() {
    let tls = Tls::hello(&["a.test", "evil.test"]).await;
    let resolver = Resolver::loopback(&["a.test"]).await;
    let allow = json!([{"domain": "a.test"}]);
    let world = Setting::new(allow, &[tls.port()]).asking(resolver.address).start().await;
    let target = format!("a.test:{}", tls.port());
    for (name, reason) in [("evil.test", "other_name"), ("127.0.0.1", "no_server_name")] {
        let (stream, answer) = connect(&world, &target).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let error = tls.get(stream, name).await.unwrap_err();
        assert!(error.to_string().contains("AccessDenied"), "{error}");
        let event = world.denied(reason).await;
        assert_eq!(event.data["attempted"], format!("connect tcp {target}"));
    }
    let heard = tls.upstream.heard();
    assert!(heard.iter().all(|heard| heard == "connected"), "{heard:?}");
}

#[tokio::test]
async fn a_tunnel_to_a_name_carries_nothing_that_does_not_say_its_name() {
    let hello = Upstream::hello().await;
    let resolver = Resolver::loopback(&["a.test"]).await;
    let allow = json!([{"domain": "a.test"}]);
    let world = Setting::new(allow, &[hello.port()]).asking(resolver.address).start().await;
    let target = format!("a.test:{}", hello.port());

    let (mut stream, _) = connect(&world, &target).await;
    assert_eq!(exchange(&mut stream, b"SSH-2.0-client\r\n").await, "");
    world.denied("not_recognised").await;

    let (mut stream, _) = connect(&world, &target).await;
    let answer = exchange(&mut stream, b"GET /x HTTP/1.1\r\nHost: evil.test\r\n\r\n").await;
    assert_eq!(problem(&answer)["reason"], "other_name");
    assert_eq!(hello.heard(), Vec::<String>::new());

    // Each request is decided, not just the first.
    let (mut stream, _) = connect(&world, &target).await;
    let both = format!("GET /x HTTP/1.1\r\nHost: {target}\r\n\r\nGET /y HTTP/1.1\r\nHost: evil.test\r\n\r\n");
    let answer = exchange(&mut stream, both.as_bytes()).await;
    assert!(answer.contains("hello") && answer.contains("other_name"), "{answer}");
    assert_eq!(hello.heard().len(), 1);
}

#[tokio::test]
async fn a_tunnel_to_an_allowed_address_carries_anything() {
    let echo = Upstream::echo().await;
    let allow = json!([{"cidr": "127.0.0.1/32", "ports": [echo.port()]}]);
    let world = Setting::new(allow, &[echo.port()]).start().await;
    let (mut stream, _) = connect(&world, &format!("127.0.0.1:{}", echo.port())).await;
    stream.write_all(b"\x00anything").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(to_end(&mut stream).await, "\0anything");
}

#[tokio::test]
async fn a_request_to_the_proxy_reaches_the_server_without_what_was_for_the_proxy() {
    let hello = Upstream::hello().await;
    let resolver = Resolver::loopback(&["a.test"]).await;
    let allow = json!([{"domain": "a.test", "ports": [hello.port()]}]);
    let world = Setting::new(allow, &[hello.port()]).asking(resolver.address).start().await;
    let port = hello.port();
    let answer = world
        .http(&format!(
            "POST http://a.test:{port}/x?token=q HTTP/1.1\r\nHost: A.test:{port}\r\nProxy-Authorization: Basic eA==\r\n\
             Proxy-Connection: keep-alive\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nX-Kept: 2\r\nUpgrade: h2c\r\n\
             Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
    let heard = hello.heard();
    assert_eq!(heard.len(), 1);
    let request = heard[0].to_ascii_lowercase();
    assert!(request.starts_with("post /x?token=q http/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("\r\nhost: a.test:{port}\r\n")) && request.contains("\r\nx-kept: 2\r\n"));
    assert!(request.ends_with("3\r\nabc\r\n0\r\n\r\n"), "{request}");
    for gone in ["proxy-", "x-hop", "upgrade", "connection: close"] {
        assert!(!request.contains(gone), "{gone} in {request}");
    }
    assert_eq!(world.allowed("http").await.data["destination"], format!("a.test:{port}"));
}

#[tokio::test]
async fn each_request_of_a_connection_is_decided_on_its_own() {
    let hello = Upstream::hello().await;
    let resolver = Resolver::loopback(&["a.test", "b.test"]).await;
    let allow = json!([{"domain": "a.test", "ports": [hello.port()]}]);
    let world = Setting::new(allow, &[hello.port()]).asking(resolver.address).start().await;
    let port = hello.port();
    let answer = world
        .http(&format!(
            "GET http://a.test:{port}/1 HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n\
             GET http://b.test:{port}/2?secret HTTP/1.1\r\nHost: b.test:{port}\r\n\r\n\
             GET http://a.test:{port}/3 HTTP/1.1\r\nHost: a.test:{port}\r\nConnection: close\r\n\r\n"
        ))
        .await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 403").count(), 1, "{answer}");
    let event = world.denied("not_allowed").await;
    assert_eq!(event.data["attempted"], format!("http GET http://b.test:{port}/2"));
    assert_eq!(hello.heard().len(), 2);
}

#[tokio::test]
async fn what_a_proxy_does_not_do_is_said() {
    let resolver = Resolver::loopback(&["a.test"]).await;
    let world = Setting::new(json!([{"domain": "a.test"}]), &[]).asking(resolver.address).start().await;
    let close = "Connection: close\r\n\r\n";
    for (request, status, says) in [
        (format!("GET https://a.test/ HTTP/1.1\r\nHost: a.test\r\n{close}"), "400", "https goes through CONNECT"),
        (format!("GET / HTTP/1.1\r\nHost: a.test\r\n{close}"), "403", "this is a proxy"),
        (format!("GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n{close}"), "403", "the Host header says b.test"),
        (
            "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: upgrade, close\r\n\r\n"
                .to_owned(),
            "501",
            "WebSockets",
        ),
        ("CONNECT a.test HTTP/1.1\r\nHost: a.test\r\n\r\n".to_owned(), "400", "malformed"),
        (
            "CONNECT git.enclave.internal:443 HTTP/1.1\r\nHost: git.enclave.internal\r\n\r\n".to_owned(),
            "403",
            "without TLS",
        ),
    ] {
        let answer = world.http(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert!(problem(&answer)["detail"].as_str().unwrap().contains(says), "{answer}");
    }
}

#[tokio::test]
async fn a_name_that_is_allowed_and_not_there_is_no_denial_of_the_proxy() {
    let resolver = Resolver::start(vec![("down.test", addresses(&["127.0.0.1"]))]).await;
    // A port that was free a moment ago.
    let port = Upstream::hello().await.port();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_ne!(port, closed);
    let allow = json!([{"domain": "*.test"}]);
    let world = Setting::new(allow, &[closed]).asking(resolver.address).start().await;
    let answer = world.http("CONNECT missing.test:443 HTTP/1.1\r\nHost: missing.test:443\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 502 not resolved: missing.test"), "{answer}");
    let answer = world.http(&format!("CONNECT down.test:{closed} HTTP/1.1\r\nHost: down.test:{closed}\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 502 upstream unreachable"), "{answer}");
    assert_eq!(problem(&answer)["code"], "upstream_unreachable");
}

#[tokio::test]
async fn a_metadata_service_is_refused_in_every_spelling_and_behind_every_name() {
    let redirect =
        Upstream::http("HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/\r\nContent-Length: 0\r\n\r\n")
            .await;
    let resolver = Resolver::start(vec![
        ("meta.test", addresses(&["169.254.169.254"])),
        ("alias.test", Says::Alias("meta.test")),
        ("a.test", addresses(&["127.0.0.1"])),
    ])
    .await;
    let allow = json!(["0.0.0.0/0", "::/0", {"domain": "*.test"}]);
    let world = Setting::new(allow, &[redirect.port()]).asking(resolver.address).start().await;
    for host in [
        "169.254.169.254",
        "169.254.169.254.",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "meta.test",
        "alias.test",
    ] {
        for request in [
            format!("CONNECT {host}:80 HTTP/1.1\r\nHost: {host}:80\r\n\r\n"),
            format!("GET http://{host}/latest/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
        ] {
            let answer = world.http(&request).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{request}: {answer}");
            assert_eq!(problem(&answer)["reason"], "metadata_address", "{request}");
            assert!(problem(&answer).get("allowedBy").is_none(), "no rule could allow it");
        }
    }
    // A redirect is followed by the client, if at all.
    let port = redirect.port();
    let answer = world
        .http(&format!("GET http://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}\r\nConnection: close\r\n\r\n"))
        .await;
    assert!(answer.contains("location: http://169.254.169.254/latest/"), "{answer}");
    let allowed = world.heard().events().into_iter().filter(|event| event.kind == AuditType::EgressAllowed).count();
    assert_eq!(allowed, 1);
}
