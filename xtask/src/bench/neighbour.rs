//! A session that holds as many streams as a hostile or a busy one would, so that another can be measured beside it.

use std::time::{Duration, Instant};

use anyhow::ensure;
use client::Client;
use serde_json::json;
use wire::{CreateSession, SessionId};

use super::upstream::Upstream;

/// Downloads at once, as fast as they come.
pub(super) const STREAMS: usize = 500;
/// How long they may take to begin.
const PATIENCE: Duration = Duration::from_mins(1);

const PROGRAM: &str = r"
import os, selectors, socket
host = '127.0.0.1:' + os.environ['BENCH_PORT']
watched, buffer = selectors.DefaultSelector(), bytearray(1 << 16)
for _ in range(int(os.environ['BENCH_STREAMS'])):
    stream = socket.create_connection(('127.0.0.53', 3128))
    stream.sendall(f'GET http://{host}/large HTTP/1.1\r\nHost: {host}\r\n\r\n'.encode())
    stream.setblocking(False)
    watched.register(stream, selectors.EVENT_READ)
while True:
    for key, _ in watched.select():
        if not key.fileobj.recv_into(buffer):
            raise SystemExit('a stream has ended')
";

/// Starts it, and waits until all of its streams flow.
pub(super) async fn start(client: &Client, upstream: &Upstream) -> anyhow::Result<SessionId> {
    let request = json!({
        "code": PROGRAM,
        "env": {"BENCH_PORT": upstream.port().to_string(), "BENCH_STREAMS": STREAMS.to_string()},
        "egress": {"mode": "allowlist", "allow": [{"cidr": "127.0.0.1/32", "ports": [upstream.port()]}]},
        "limits": {"cpu": 1.0, "wallClockMs": 300_000},
    });
    let request: CreateSession = serde_json::from_value(request)?;
    let id = client.create(&request).await?.id;
    let began = Instant::now();
    while upstream.streams() < STREAMS {
        ensure!(began.elapsed() < PATIENCE, "{} of {STREAMS} streams", upstream.streams());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(id)
}

/// Ends it, if it is there to be ended.
pub(super) async fn stop(client: &Client, upstream: &Upstream, id: SessionId) -> anyhow::Result<()> {
    ensure!(upstream.streams() == STREAMS, "{} of {STREAMS} streams were there to the end", upstream.streams());
    client.delete(id).await?;
    Ok(())
}
