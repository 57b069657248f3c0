//! SOCKS5 clients.

use protocol::egress::Opening;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use crate::{
    resolver::{Resolver, addresses},
    tls::Tls,
    upstream::Upstream,
    world::{Setting, World, exchange, to_end},
};

/// A handshake with one request; its reply code.
async fn ask(world: &World, command: u8, kind: u8, address: &[u8], port: u16) -> (UnixStream, u8) {
    let mut stream = world.open(Opening::Socks);
    let mut request = vec![5, 1, 0, 5, command, 0, kind];
    request.extend_from_slice(address);
    request.extend_from_slice(&port.to_be_bytes());
    stream.write_all(&request).await.unwrap();
    let mut reply = [0; 12];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(reply[..3], [5, 0, 5]);
    (stream, reply[3])
}

async fn ask_name(world: &World, name: &str, port: u16) -> (UnixStream, u8) {
    let mut address = vec![u8::try_from(name.len()).unwrap()];
    address.extend_from_slice(name.as_bytes());
    ask(world, 1, 3, &address, port).await
}

#[tokio::test]
async fn a_name_is_decided_and_its_tls_has_to_be_for_it() {
    let tls = Tls::hello(&["a.test", "evil.test"]).await;
    let resolver = Resolver::loopback(&["a.test"]).await;
    let allow = json!([{"domain": "a.test", "ports": [tls.port()]}]);
    let world = Setting::new(allow, &[tls.port()]).asking(resolver.address).start().await;
    let (stream, reply) = ask_name(&world, "a.test", tls.port()).await;
    assert_eq!(reply, 0);
    assert!(tls.get(stream, "a.test").await.unwrap().ends_with("hello"));
    assert_eq!(world.allowed("socks").await.data["destination"], format!("a.test:{}", tls.port()));

    let (stream, reply) = ask_name(&world, "a.test", tls.port()).await;
    assert_eq!(reply, 0);
    assert!(tls.get(stream, "evil.test").await.is_err());
    world.denied("other_name").await;

    let (mut stream, reply) = ask_name(&world, "b.test", 443).await;
    assert_eq!(reply, 2);
    assert_eq!(to_end(&mut stream).await, "");
    assert_eq!(world.denied("not_allowed").await.data["attempted"], "connect tcp b.test:443");
    assert_eq!(resolver.asked().iter().filter(|name| *name == "b.test").count(), 0);
}

#[tokio::test]
async fn an_address_is_decided_in_every_form() {
    let echo = Upstream::echo().await;
    let resolver = Resolver::start(vec![("meta.test", addresses(&["169.254.169.254"]))]).await;
    let allow = json!(["127.0.0.1/32", "0.0.0.0/0", {"domain": "meta.test"}]);
    let world = Setting::new(allow, &[echo.port()]).asking(resolver.address).start().await;
    let v6 = std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets();
    for (kind, address) in [(1, &[127, 0, 0, 1][..]), (4, &v6), (3, b"\x09127.0.0.1")] {
        let (mut stream, reply) = ask(&world, 1, kind, address, echo.port()).await;
        assert_eq!(reply, 0);
        stream.write_all(b"hi").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(to_end(&mut stream).await, "hi");
    }
    let metadata_v6 = std::net::Ipv4Addr::new(169, 254, 169, 254).to_ipv6_mapped().octets();
    for (kind, address) in [
        (1, &[169, 254, 169, 254][..]),
        (4, &metadata_v6),
        (3, b"\x0a2852039166"),
        (3, b"\x0a0xa9fea9fe"),
        (3, b"\x09meta.test"),
    ] {
        let (_, reply) = ask(&world, 1, kind, address, 80).await;
        assert_eq!(reply, 2, "{address:?}");
    }
    world.denied("metadata_address").await;
}

#[tokio::test]
async fn what_is_not_carried_is_refused_and_told() {
    let world = Setting::new(json!(["8.8.8.8/32"]), &[]).start().await;
    for (command, attempted) in [(2, "socks bind 8.8.8.8:53"), (3, "socks udp associate 8.8.8.8:53")] {
        let (mut stream, reply) = ask(&world, command, 1, &[8, 8, 8, 8], 53).await;
        assert_eq!(reply, 7);
        assert_eq!(to_end(&mut stream).await, "");
        world.heard().event(|event| event.data["attempted"] == attempted).await;
    }
    let (_, reply) = ask_name(&world, "not a host", 1).await;
    assert_eq!(reply, 2);
    world.denied("not_a_host").await;
}

#[tokio::test]
async fn what_is_no_socks5_ends_the_stream() {
    let world = Setting::new(json!([]), &[]).start().await;
    for (bytes, answer) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], ""),
        (&[4, 1, 0, 80, 1, 2, 3, 4, 0], ""),
        (&[5, 1, 2], "\u{5}\u{fffd}"),
        (&[5, 1, 0, 4], "\u{5}\0"),
        (&[5, 1, 0, 5, 1, 0, 9], "\u{5}\0\u{5}\u{8}\0\u{1}\0\0\0\0\0\0"),
    ] {
        assert_eq!(exchange(&mut world.open(Opening::Socks), bytes).await, answer, "{bytes:?}");
    }
}
