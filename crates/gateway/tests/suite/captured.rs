//! Connections that the sandbox's kernel caught.

use std::net::{IpAddr, SocketAddr};

use protocol::egress::{Datagram, Opening};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};
use wire::AuditSource;

use crate::{
    dns::resolve,
    proxy::problem,
    resolver::{Resolver, Says},
    tls::Tls,
    upstream::Upstream,
    world::{PATIENCE, Setting, World, exchange, to_end},
};

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn caught(world: &World, port: u16) -> UnixStream {
    world.open(Opening::Captured(SocketAddr::new(LOOPBACK, port)))
}

/// A world in which `a.test` was resolved to loopback, and is allowed on these ports.
async fn resolved(ports: &[u16]) -> (World, Resolver) {
    let resolver = Resolver::loopback(&["a.test", "b.test"]).await;
    let allow = json!([{"domain": "a.test", "ports": ports}]);
    let world = Setting::new(allow, ports).asking(resolver.address).start().await;
    assert_eq!(resolve(&world, "a.test").await, [LOOPBACK]);
    (world, resolver)
}

#[tokio::test]
async fn an_allowed_address_is_relayed_as_it_is() {
    let echo = Upstream::echo().await;
    let allow = json!([{"cidr": "127.0.0.1/32", "ports": [echo.port()]}]);
    let world = Setting::new(allow, &[echo.port()]).start().await;
    assert_eq!(exchange_half(&mut caught(&world, echo.port()), b"\x16\x03anything").await, "\u{16}\u{3}anything");
    assert_eq!(world.allowed("tcp").await.data["destination"], format!("127.0.0.1:{}", echo.port()));
}

/// Says all, ends its half, and listens to the end.
async fn exchange_half(stream: &mut UnixStream, bytes: &[u8]) -> String {
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    to_end(stream).await
}

#[tokio::test]
async fn an_address_that_nobody_resolved_is_refused_and_http_is_told_why() {
    let world = Setting::new(json!([{"domain": "a.test"}]), &[]).start().await;
    for (address, reason) in [
        ("93.184.216.34:80", "not_allowed"),
        ("169.254.169.254:80", "metadata_address"),
        ("10.0.0.1:80", "private_address"),
    ] {
        let mut stream = world.open(Opening::Captured(address.parse().unwrap()));
        let answer = exchange(&mut stream, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert_eq!(problem(&answer)["reason"], reason);
        assert_eq!(world.denied(reason).await.data["attempted"], format!("connect tcp {address}"));
        let mut stream = world.open(Opening::Captured(address.parse().unwrap()));
        assert_eq!(exchange(&mut stream, b"\x00not http").await, "");
    }
}

#[tokio::test]
async fn tls_to_a_resolved_address_has_to_name_what_was_resolved() {
    let tls = Tls::hello(&["a.test", "b.test"]).await;
    let (world, _resolver) = resolved(&[tls.port()]).await;
    assert!(tls.get(caught(&world, tls.port()), "a.test").await.unwrap().ends_with("hello"));
    assert_eq!(world.allowed("tls").await.data["destination"], format!("a.test:{}", tls.port()));
    assert_eq!(tls.upstream.heard().len(), 2);

    let error = tls.get(caught(&world, tls.port()), "b.test").await.unwrap_err();
    assert!(error.to_string().contains("AccessDenied"), "{error}");
    assert_eq!(world.denied("other_name").await.data["attempted"], format!("connect tcp 127.0.0.1:{}", tls.port()));
    assert!(tls.get(caught(&world, tls.port()), "127.0.0.1").await.is_err());
    world.denied("no_server_name").await;
    assert_eq!(tls.upstream.heard().len(), 2, "nothing was connected for another name");
}

#[tokio::test]
async fn http_to_a_resolved_address_is_decided_request_by_request() {
    let hello = Upstream::hello().await;
    let (world, _resolver) = resolved(&[hello.port()]).await;
    let port = hello.port();
    let get = |host: &str| format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let requests = format!("{}{}{}", get(&format!("a.test:{port}")), get(&format!("b.test:{port}")), get("a.test"));
    let answer = exchange(&mut caught(&world, port), requests.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1, "{answer}");
    assert_eq!(answer.matches("\"reason\":\"other_name\"").count(), 1, "{answer}");
    for host in ["a.test", "127.0.0.1", &format!("127.0.0.1:{port}"), "evil.test", "a.test:1"] {
        let answer = exchange(&mut caught(&world, port), get(host).as_bytes()).await;
        assert_eq!(problem(&answer)["reason"], "other_name", "{host}");
    }
    let absolute = format!("GET http://b.test:{port}/ HTTP/1.1\r\nHost: b.test:{port}\r\n\r\n");
    assert_eq!(problem(&exchange(&mut caught(&world, port), absolute.as_bytes()).await)["reason"], "other_name");
    let tunnel = format!("CONNECT a.test:{port} HTTP/1.1\r\nHost: a.test:{port}\r\n\r\n");
    let answer = exchange(&mut caught(&world, port), tunnel.as_bytes()).await;
    assert_eq!(problem(&answer)["reason"], "protocol_not_carried");
    assert_eq!(hello.heard().len(), 1);
    assert_eq!(world.allowed("http").await.data["address"], "127.0.0.1");
}

#[tokio::test]
async fn a_port_that_the_name_is_not_allowed_on_is_refused() {
    let hello = Upstream::hello().await;
    let other = Upstream::hello().await;
    let (world, _resolver) = resolved(&[hello.port()]).await;
    let request = format!("GET / HTTP/1.1\r\nHost: a.test:{}\r\n\r\n", other.port());
    let answer = exchange(&mut caught(&world, other.port()), request.as_bytes()).await;
    assert_eq!(problem(&answer)["reason"], "port_not_allowed");
    assert_eq!(problem(&answer)["allowedBy"], format!("{{\"domain\":\"a.test\",\"ports\":[{}]}}", other.port()));
}

#[tokio::test]
async fn a_server_may_speak_first_but_then_its_client_may_not_begin_with_a_name() {
    let greeter = Upstream::greeting("220 hello\r\n").await;
    let (world, _resolver) = resolved(&[greeter.port()]).await;
    for (says, reason) in [
        (&b"EHLO a\r\n"[..], None),
        (b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", Some("not_recognised")),
        (b"\x16\x03\x01\x00\x05\x01", Some("not_recognised")),
    ] {
        let mut stream = caught(&world, greeter.port());
        let mut greeting = [0; 11];
        timeout(PATIENCE, stream.read_exact(&mut greeting)).await.unwrap().unwrap();
        assert_eq!(&greeting, b"220 hello\r\n");
        let answer = exchange_half(&mut stream, says).await;
        match reason {
            None => assert_eq!(answer.as_bytes(), says),
            Some(reason) => {
                assert_eq!(answer, "");
                world.denied(reason).await;
            }
        }
    }
    assert_eq!(world.allowed("tcp").await.data["destination"], format!("a.test:{}", greeter.port()));
    // A client that speaks first, and neither TLS nor HTTP.
    assert_eq!(exchange(&mut caught(&world, greeter.port()), b"SSH-2.0-x\r\n").await, "");
}

#[tokio::test]
async fn a_client_that_is_only_slow_is_decided_by_what_it_says() {
    let tls = Tls::hello(&["a.test", "b.test"]).await;
    let (world, _resolver) = resolved(&[tls.port()]).await;
    for (name, goes) in [("a.test", true), ("b.test", false)] {
        let before = tls.upstream.heard().len();
        let stream = caught(&world, tls.port());
        // The gateway has taken it for one that waits for the server, and connected.
        world.heard().event(|event| event.data["protocol"] == "tcp").await;
        while tls.upstream.heard().len() == before {
            tokio::task::yield_now().await;
        }
        assert_eq!(tls.get(stream, name).await.is_ok(), goes, "{name}");
    }
    world.denied("other_name").await;
}

#[tokio::test]
async fn a_name_that_moves_to_a_forbidden_address_takes_nobody_there() {
    let hello = Upstream::hello().await;
    let turns = vec![LOOPBACK, IpAddr::from([169, 254, 169, 254])];
    let resolver = Resolver::start(vec![("a.test", Says::InTurn(turns))]).await;
    let world = Setting::new(json!([{"domain": "a.test"}]), &[hello.port()]).asking(resolver.address).start().await;
    assert_eq!(resolve(&world, "a.test").await, [LOOPBACK]);
    assert_eq!(resolve(&world, "a.test").await, Vec::<IpAddr>::new());
    world.denied("metadata_address").await;
    // Nor by the way of the proxy, which resolves anew.
    let answer = world.http("GET http://a.test/latest HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await;
    assert_eq!(problem(&answer)["reason"], "metadata_address");
    // What was told before stays allowed, and only that.
    let request = format!("GET / HTTP/1.1\r\nHost: a.test:{}\r\nConnection: close\r\n\r\n", hello.port());
    assert!(exchange(&mut caught(&world, hello.port()), request.as_bytes()).await.ends_with("hello"));
    let mut stream = world.open(Opening::Captured("169.254.169.254:80".parse().unwrap()));
    let answer = exchange(&mut stream, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(problem(&answer)["reason"], "metadata_address");
}

#[tokio::test]
async fn what_the_runner_says_was_tried_is_told_as_its_word() {
    let world = Setting::new(json!([]), &[]).start().await;
    for (protocol, destination, attempted) in
        [(Datagram::Udp, "8.8.8.8:4433", "send udp 8.8.8.8:4433"), (Datagram::Icmp, "8.8.8.8:0", "ping 8.8.8.8")]
    {
        let mut stream = world.open(Opening::Attempt { protocol, destination: destination.parse().unwrap() });
        assert_eq!(to_end(&mut stream).await, "");
        let event = world.heard().event(|event| event.data["attempted"] == attempted).await;
        assert_eq!((event.source, event.data["reason"].as_str()), (AuditSource::Runner, Some("protocol_not_carried")));
    }
}
