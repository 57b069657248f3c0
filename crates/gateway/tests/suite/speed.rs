//! How fast it is. Run by hand: `cargo nextest run --release -p gateway --run-ignored only speed --no-capture`.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{proxy::connect, upstream::Upstream, world::Setting};

const GIB: u64 = 1 << 30;

async fn drain(mut from: impl AsyncRead + Unpin) -> Duration {
    let start = Instant::now();
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        match from.read(&mut buffer).await.unwrap() {
            0 => break,
            read => total += read as u64,
        }
    }
    assert_eq!(total, GIB);
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_gibibyte_through_the_gateway_and_without_it() {
    let source = Upstream::start(|mut stream, _| async move {
        let block = vec![7; 256 << 10];
        for _ in 0..GIB / block.len() as u64 {
            if stream.write_all(&block).await.is_err() {
                return;
            }
        }
    })
    .await;
    let world = Setting::new(json!(["127.0.0.1/32"]), &[source.port()]).start().await;
    for _ in 0..3 {
        let direct = drain(TcpStream::connect(source.address).await.unwrap()).await;
        let (stream, _) = connect(&world, &format!("127.0.0.1:{}", source.port())).await;
        let through = drain(stream).await;
        let ratio = direct.as_secs_f64() / through.as_secs_f64();
        eprintln!("direct {direct:?}, through the gateway {through:?}: {:.0} %", ratio * 100.0);
    }
}

#[tokio::test]
#[ignore = "a measurement"]
async fn the_time_that_a_request_takes_longer() {
    let hello = Upstream::hello().await;
    let world = Setting::new(json!(["127.0.0.1/32"]), &[hello.port()]).start().await;
    let request =
        format!("GET http://127.0.0.1:{0}/ HTTP/1.1\r\nHost: 127.0.0.1:{0}\r\nConnection: close\r\n\r\n", hello.port());
    let mut times = Vec::new();
    for _ in 0..2000 {
        let start = Instant::now();
        assert!(world.http(&request).await.ends_with("hello"));
        times.push(start.elapsed());
    }
    times.sort_unstable();
    eprintln!("a proxied request on a new stream: p50 {:?}, p99 {:?}", times[1000], times[1980]);
}
