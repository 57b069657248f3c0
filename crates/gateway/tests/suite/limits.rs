//! How much, how many, how long.

use std::io::{Read as _, Write as _};

use model::gateway::FromGateway;
use protocol::egress::{GRANTED, Opening, REFUSED, WANT};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

use crate::{
    proxy::{connect, problem},
    upstream::{Upstream, request},
    world::{PATIENCE, Setting, World, events, to_end},
};

async fn echoing(change: impl FnOnce(&mut model::gateway::GatewayLimits)) -> (World, Upstream, String) {
    let echo = Upstream::echo().await;
    let allow = json!([{"cidr": "127.0.0.1/32", "ports": [echo.port()]}]);
    let world = Setting::new(allow, &[echo.port()]).limited(change).start().await;
    let target = format!("127.0.0.1:{}", echo.port());
    (world, echo, target)
}

async fn echoes(stream: &mut UnixStream) {
    stream.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"ping");
}

/// A thousand streams have four thousand ends here.
fn many_files() {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
}

#[tokio::test]
async fn there_are_so_many_connections_at_once_and_places_become_free() {
    let (world, _echo, target) = echoing(|limits| limits.connections = 3).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(connect(&world, &target).await.0);
    }
    for _ in 0..5 {
        assert!(world.want().is_none());
    }
    let event = world.denied("quota").await;
    assert_eq!(event.data["attempted"], "open a connection");
    let mut one = streams.pop().unwrap();
    one.shutdown().await.unwrap();
    assert_eq!(to_end(&mut one).await, "");
    drop(one);
    let freed = async {
        while world.want().is_none() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, freed).await.expect("the place becomes free");
    let said = world.end().await;
    let quota: Vec<_> = events(&said).into_iter().filter(|event| event.data["reason"] == "quota").collect();
    assert_eq!(quota.len(), 2, "told once, and once more how often: {quota:?}");
}

#[tokio::test]
async fn there_are_so_many_connections_in_all() {
    let (world, _echo, target) = echoing(|limits| limits.total_connections = 2).await;
    // Both are to be asked for before the first connection is made.
    let mut third = world.open(Opening::Http);
    for _ in 0..2 {
        let (mut stream, answer) = connect(&world, &target).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        echoes(&mut stream).await;
    }
    third.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).await.unwrap();
    let answer = to_end(&mut third).await;
    assert!(
        answer.starts_with("HTTP/1.1 403 egress denied: the session has made all of its 2 connections"),
        "{answer}"
    );
    assert_eq!(problem(&answer)["reason"], "quota");
    assert!(world.want().is_none());
    assert_eq!(world.denied("quota").await.data["attempted"], format!("connect tcp {target}"));
}

#[tokio::test]
async fn a_session_that_has_used_up_its_bytes_is_cut_off() {
    let (world, _echo, target) = echoing(|limits| limits.bytes = 1 << 20).await;
    let (stream, _) = connect(&world, &target).await;
    let (mut from, mut to) = stream.into_split();
    let writing = tokio::spawn(async move {
        let block = [7; 4096];
        while to.write_all(&block).await.is_ok() {}
    });
    let mut received = Vec::new();
    let _ = timeout(PATIENCE, from.read_to_end(&mut received)).await.expect("it is cut");
    timeout(PATIENCE, writing).await.expect("it is cut").unwrap();
    assert!(received.len() < 1 << 20, "{}", received.len());
    assert_eq!(world.denied("quota").await.data["attempted"], format!("connect tcp {target}"));
    assert!(world.want().is_none());
    let said = world.end().await;
    let Some(FromGateway::Done { egress_bytes }) = said.last() else { panic!("no last usage") };
    assert!((1 << 20..(1 << 20) + (128 << 10)).contains(egress_bytes), "{egress_bytes}");
}

#[tokio::test]
async fn a_body_over_the_quota_is_cut_short() {
    let length = 4 << 20;
    let big =
        Upstream::http(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(length))).await;
    let allow = json!(["127.0.0.1/32"]);
    let world = Setting::new(allow, &[big.port()]).limited(|limits| limits.bytes = 1 << 20).start().await;
    let answer = world
        .http(&format!(
            "GET http://127.0.0.1:{}/ HTTP/1.1\r\nConnection: close\r\nHost: 127.0.0.1:{}\r\n\r\n",
            big.port(),
            big.port()
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.len() < 2 << 20, "{}", answer.len());
    world.denied("quota").await;
}

#[tokio::test]
async fn an_idle_connection_is_cut() {
    let (world, _echo, target) = echoing(|limits| limits.idle_ms = 200).await;
    let (mut stream, _) = connect(&world, &target).await;
    echoes(&mut stream).await;
    assert_eq!(to_end(&mut stream).await, "");
    // And an upstream that does not answer.
    let silent = Upstream::start(|stream, _| async move {
        let _kept = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let allow = json!(["127.0.0.1/32"]);
    let world = Setting::new(allow, &[silent.port()]).limited(|limits| limits.idle_ms = 200).start().await;
    let answer = world
        .http(&format!(
            "GET http://127.0.0.1:{0}/ HTTP/1.1\r\nConnection: close\r\nHost: 127.0.0.1:{0}\r\n\r\n",
            silent.port()
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
}

#[tokio::test]
async fn each_half_of_a_connection_ends_by_itself() {
    let upstream = Upstream::start(|mut stream, _| async move {
        // The client's end comes first, and then the answer.
        let mut heard = String::new();
        let _ = stream.read_to_string(&mut heard).await;
        let _ = stream.write_all(format!("you said {heard}").as_bytes()).await;
    })
    .await;
    let world = Setting::new(json!(["127.0.0.1/32"]), &[upstream.port()]).start().await;
    let (mut stream, _) = connect(&world, &format!("127.0.0.1:{}", upstream.port())).await;
    stream.write_all(b"all of it").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(to_end(&mut stream).await, "you said all of it");

    let speaks = Upstream::start(|mut stream, heard| async move {
        let _ = stream.write_all(b"bye").await;
        let _ = stream.shutdown().await;
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said).await;
        heard.lock().unwrap().push(said);
    })
    .await;
    let world = Setting::new(json!(["127.0.0.1/32"]), &[speaks.port()]).start().await;
    let (mut stream, _) = connect(&world, &format!("127.0.0.1:{}", speaks.port())).await;
    assert_eq!(to_end(&mut stream).await, "bye");
    stream.write_all(b"late words").await.unwrap();
    stream.shutdown().await.unwrap();
    let heard = async {
        while speaks.heard().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, heard).await.expect("the late words arrive");
    assert_eq!(speaks.heard(), ["late words"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_streams_go_on_at_once() {
    many_files();
    let (world, _echo, target) = echoing(|_| {}).await;
    let mut streams = Vec::new();
    for _ in 0..500 {
        streams.push(connect(&world, &target).await.0);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (number, mut stream) in streams.into_iter().enumerate() {
        tasks.spawn(async move {
            let sent = vec![u8::try_from(number % 251).unwrap(); 64 << 10];
            let (mut from, mut to) = stream.split();
            let mut received = Vec::new();
            let write = async {
                to.write_all(&sent).await.unwrap();
                to.shutdown().await.unwrap();
            };
            let ((), read) = tokio::join!(write, from.read_to_end(&mut received));
            read.unwrap();
            assert_eq!(received, sent);
        });
    }
    let all = async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    };
    timeout(PATIENCE * 3, all).await.expect("all of them finish");
    let said = world.end().await;
    let Some(FromGateway::Done { egress_bytes }) = said.last() else { panic!("no last usage") };
    assert_eq!(*egress_bytes, 500 * 2 * (64 << 10));
}

#[tokio::test]
async fn a_flood_of_wishes_gets_so_many_streams_and_no_more() {
    many_files();
    let (world, _echo, _) = echoing(|limits| limits.connections = 8).await;
    let writer = world.pipe().try_clone().unwrap();
    let flood = tokio::task::spawn_blocking(move || (&writer).write_all(&vec![WANT; 20_000]).unwrap());
    let answers = world.pipe().try_clone().unwrap();
    let counted = tokio::task::spawn_blocking(move || {
        // Read without taking descriptors: what was granted is closed, and its place becomes free again.
        let (mut granted, mut refused, mut words) = (0, 0, [0; 1]);
        while granted + refused < 20_000 {
            (&answers).read_exact(&mut words).unwrap();
            match words[0] {
                GRANTED => granted += 1,
                REFUSED => refused += 1,
                other => panic!("{other}"),
            }
        }
        (granted, refused)
    });
    timeout(PATIENCE, flood).await.unwrap().unwrap();
    let (granted, refused) = timeout(PATIENCE, counted).await.unwrap().unwrap();
    assert!(granted >= 8 && refused > 0, "{granted} {refused}");
    // When it is over, there are places again.
    let freed = async {
        while world.want().is_none() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, freed).await.expect("places become free");
    let events = events(&world.end().await);
    assert!(events.len() < 10, "{}", events.len());
}

#[tokio::test]
async fn a_client_that_goes_in_the_middle_of_a_body_takes_nothing_along() {
    let (seen, mut cut) = tokio::sync::mpsc::channel(1);
    let upstream = Upstream::start(move |mut stream, _| {
        let seen = seen.clone();
        async move {
            let whole = request(&mut stream).await;
            seen.send(whole.is_some()).await.unwrap();
        }
    })
    .await;
    let world = Setting::new(json!(["127.0.0.1/32"]), &[upstream.port()]).start().await;
    let mut stream = world.open(Opening::Http);
    let upload = format!(
        "POST http://127.0.0.1:{0}/ HTTP/1.1\r\nHost: 127.0.0.1:{0}\r\nContent-Length: 100000\r\n\r\nonly this",
        upstream.port()
    );
    stream.write_all(upload.as_bytes()).await.unwrap();
    world.allowed("http").await;
    drop(stream);
    let whole = timeout(PATIENCE, cut.recv()).await.expect("the upstream sees an end").unwrap();
    assert!(!whole, "a body that was cut looked whole");
    // In the middle of an answer.
    let endless = Upstream::start(move |mut stream, heard| async move {
        let _ = request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        heard.lock().unwrap().push("cut".to_owned());
    })
    .await;
    let world = Setting::new(json!(["127.0.0.1/32"]), &[endless.port()]).start().await;
    let mut stream = world.open(Opening::Http);
    let request = format!("GET http://127.0.0.1:{0}/ HTTP/1.1\r\nHost: 127.0.0.1:{0}\r\n\r\n", endless.port());
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.read_exact(&mut [0; 10_000]).await.unwrap();
    drop(stream);
    let heard = async {
        while endless.heard().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, heard).await.expect("the upstream is let go of");
}
