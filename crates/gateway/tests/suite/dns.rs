//! Clients of the DNS stub.

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::{
    op::{Edns, Message, Query, ResponseCode},
    rr::{
        Name, RData, RecordType,
        rdata::opt::{EdnsCode, EdnsOption},
    },
};
use protocol::egress::{INSIDE, Opening};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

use crate::{
    resolver::{Resolver, Says, addresses},
    world::{PATIENCE, Setting, World, exchange},
};

pub(crate) async fn send(stream: &mut UnixStream, message: &Message) {
    let bytes = message.to_vec().unwrap();
    stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
}

pub(crate) async fn receive(stream: &mut UnixStream) -> Message {
    let read = async {
        let mut bytes = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut bytes).await.unwrap();
        Message::from_vec(&bytes).unwrap()
    };
    timeout(PATIENCE, read).await.expect("an answer comes")
}

pub(crate) fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind));
    message.set_edns(Edns::new());
    message
}

pub(crate) async fn ask(world: &World, name: &str, kind: RecordType) -> Message {
    let mut stream = world.open(Opening::Dns);
    send(&mut stream, &question(name, kind)).await;
    receive(&mut stream).await
}

pub(crate) async fn resolve(world: &World, name: &str) -> Vec<IpAddr> {
    let answer = ask(world, name, RecordType::A).await;
    let address = |data: &RData| {
        let RData::A(v4) = data else { panic!("{data:?}") };
        IpAddr::V4(v4.0)
    };
    answer.answers.iter().map(|record| address(&record.data)).collect()
}

/// The text of an extended error, if it says that something was blocked.
fn blocked(answer: &Message) -> String {
    let option = answer.edns.as_ref().unwrap().option(EdnsCode::Unknown(15));
    let Some(EdnsOption::Unknown(_, error)) = option else { panic!("no extended error in {answer:?}") };
    assert_eq!(error[..2], [0, 15]);
    String::from_utf8(error[2..].to_vec()).unwrap()
}

#[tokio::test]
async fn allowed_names_are_resolved_and_no_other_name_leaves() {
    let resolver = Resolver::start(vec![
        ("a.test", addresses(&["198.51.100.1", "198.51.100.2", "2001:db8::1"])),
        ("b.test", addresses(&["198.51.100.3"])),
    ])
    .await;
    let world = Setting::new(json!([{"domain": "a.test"}]), &[]).asking(resolver.address).start().await;
    let mut found = resolve(&world, "A.test").await;
    found.sort_unstable();
    assert_eq!(found, [IpAddr::from([198, 51, 100, 1]), IpAddr::from([198, 51, 100, 2])]);
    for kind in [RecordType::AAAA, RecordType::HTTPS, RecordType::SVCB, RecordType::TXT, RecordType::ANY] {
        let answer = ask(&world, "a.test", kind).await;
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 0), "{kind}");
    }
    for (name, kind) in [
        ("b.test", RecordType::A),
        ("b.test", RecordType::TXT),
        ("c2vjcmv0.a.test", RecordType::A),
        ("c2vjcmv0.evil.test", RecordType::AAAA),
        ("1.2.0.192.in-addr.arpa", RecordType::PTR),
        ("169.254.169.254", RecordType::A),
    ] {
        let answer = ask(&world, name, kind).await;
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::Refused, 0), "{name}");
        world.heard().event(|event| event.data["attempted"] == format!("resolve {name}")).await;
    }
    let text = blocked(&ask(&world, "b.test", RecordType::A).await);
    assert_eq!(text, r#"no entry of egress.allow names b.test; allow {"domain":"b.test"}"#);
    let asked = resolver.asked();
    assert!(!asked.is_empty() && asked.iter().all(|name| name == "a.test"), "{asked:?}");
}

#[tokio::test]
async fn names_inside_are_asked_for_nowhere_else() {
    let resolver = Resolver::loopback(&["git.enclave.internal"]).await;
    let world = Setting::new(json!([]), &[]).asking(resolver.address).start().await;
    assert_eq!(resolve(&world, "git.enclave.internal").await, [IpAddr::V4(INSIDE)]);
    assert_eq!(resolve(&world, "localhost").await, [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    assert_eq!(resolver.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn addresses_that_nobody_may_reach_are_not_told() {
    let resolver = Resolver::start(vec![
        ("meta.test", addresses(&["169.254.169.254"])),
        ("alias.test", Says::Alias("meta.test")),
        ("mixed.test", addresses(&["127.0.0.1", "198.51.100.1", "10.0.0.1", "169.254.169.254"])),
        ("private.test", addresses(&["10.0.0.1"])),
        ("loop.test", Says::Alias("loop.test")),
    ])
    .await;
    let world = Setting::new(json!([{"domain": "*.test"}]), &[]).asking(resolver.address).start().await;
    for name in ["meta.test", "alias.test"] {
        let answer = ask(&world, name, RecordType::A).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused, "{name}");
        assert!(blocked(&answer).contains("metadata service"));
    }
    world.denied("metadata_address").await;
    assert_eq!(resolve(&world, "mixed.test").await, [IpAddr::from([198, 51, 100, 1])]);
    let private = ask(&world, "private.test", RecordType::A).await;
    assert_eq!(private.metadata.response_code, ResponseCode::Refused);
    assert!(blocked(&private).contains("needs a CIDR"));
    for name in ["missing.test", "loop.test"] {
        let answer = ask(&world, name, RecordType::A).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "{name}");
    }
    world.denied("not_resolved").await;
}

#[tokio::test]
async fn huge_answers_are_cut_to_what_fits() {
    let many: Vec<String> = (0..=255).map(|last| format!("198.51.100.{last}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let resolver = Resolver::start(vec![("many.test", addresses(&many))]).await;
    let world = Setting::new(json!([{"domain": "many.test"}]), &[]).asking(resolver.address).start().await;
    let found = resolve(&world, "many.test").await;
    assert!((1..=8).contains(&found.len()), "{found:?}");
}

#[tokio::test]
async fn many_questions_of_one_stream_are_all_answered() {
    let resolver = Resolver::start(vec![("a.test", addresses(&["198.51.100.1"]))]).await;
    let world = Setting::new(json!([{"domain": "a.test"}]), &[]).asking(resolver.address).start().await;
    let mut stream = world.open(Opening::Dns);
    let mut ids = std::collections::BTreeSet::new();
    for number in 0..300_u16 {
        let mut asked = question(if number % 2 == 0 { "a.test" } else { "b.test" }, RecordType::A);
        asked.metadata.id = number;
        send(&mut stream, &asked).await;
        ids.insert(number);
    }
    stream.shutdown().await.unwrap();
    for _ in 0..300 {
        assert!(ids.remove(&receive(&mut stream).await.metadata.id));
    }
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn malformed_questions_harm_nobody() {
    let resolver = Resolver::start(vec![("a.test", addresses(&["198.51.100.1"]))]).await;
    let world = Setting::new(json!([{"domain": "a.test"}]), &[]).asking(resolver.address).start().await;
    let mut stream = world.open(Opening::Dns);
    // Empty, too short, garbage, an answer; then a question.
    stream.write_all(&[0, 0, 0, 3, 1, 2, 3]).await.unwrap();
    stream.write_all(&[&[0, 20][..], &[0x7f; 20]].concat()).await.unwrap();
    stream.write_all(&[&[0, 20][..], &[0xff; 20]].concat()).await.unwrap();
    send(&mut stream, &question("a.test", RecordType::A)).await;
    let fault = receive(&mut stream).await;
    assert_ne!(fault.metadata.response_code, ResponseCode::NoError);
    let answer = receive(&mut stream).await;
    assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 1));
    // What is too long to be a question ends the stream.
    assert_eq!(exchange(&mut world.open(Opening::Dns), &[0xff, 0xff, 1, 2, 3]).await, "");
}
