//! A runner that is not ours.

use std::io::Write as _;

use protocol::egress::{MAX_OPENING_BYTES, Opening};
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::UnixStream};

use crate::world::{Setting, World, to_end};

async fn raw(world: &World, bytes: &[u8]) -> String {
    let mut stream = world.want().expect("a stream");
    // It may be closed before all was written.
    let _ = stream.write_all(bytes);
    stream.set_nonblocking(true).unwrap();
    let mut stream = UnixStream::from_std(stream).unwrap();
    let _ = stream.shutdown().await;
    to_end(&mut stream).await
}

#[tokio::test]
async fn an_opening_that_is_none_ends_its_stream_and_no_other() {
    let world = Setting::new(json!([]), &[]).start().await;
    let mut good = world.open(Opening::Http);
    let whole = protocol::encode(&Opening::Http).unwrap();
    let mut trailing = whole.clone();
    trailing[3] += 1;
    trailing.push(0);
    let too_long = u32::try_from(MAX_OPENING_BYTES).unwrap().to_be_bytes();
    for bytes in [
        &[][..],
        &whole[..whole.len() - 1],
        &[0, 0, 0, 0],
        &[0, 0, 0, 1, 99],
        &[0xff; 100],
        &[&too_long[..], &[0; 100]].concat(),
        &trailing,
        b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ] {
        assert_eq!(raw(&world, bytes).await, "", "{bytes:?}");
    }
    good.write_all(b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(to_end(&mut good).await.starts_with("HTTP/1.1 403 "));
}

#[tokio::test]
async fn a_pipe_that_says_something_else_ends_the_gateway() {
    let world = Setting::new(json!([]), &[]).start().await;
    let mut open = world.open(Opening::Dns);
    let mut pipe = world.pipe();
    pipe.write_all(b"x").unwrap();
    assert_eq!(to_end(&mut open).await, "");
    let (heard, ended) = (world.heard(), world.abandon().await);
    assert!(matches!(ended, Err(gateway::GatewayError::Pipe(_) | gateway::GatewayError::ServerGone)), "{ended:?}");
    drop(heard);
}
