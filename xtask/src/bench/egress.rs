//! What the way out costs: the same calls of the same service by the same Python program, on the host, through a relayed
//! connection, and through a binding.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wire::{CreateSession, Outcome};

use super::Server;

/// Calls that are timed, after some that are not.
const CALLS: usize = 1000;
/// What is downloaded.
const LARGE_BYTES: usize = 1 << 30;

/// The program. It prints its figures, and hands them in where it can.
const PROGRAM: &str = r"
import http.client, json, os, sys, time
host, port, calls, large = os.environ['BENCH_HOST'], int(os.environ['BENCH_PORT']), int(os.environ['BENCH_CALLS']), os.environ['BENCH_LARGE'] == '1'
connection = http.client.HTTPConnection(host, port, timeout=120)
times = []
for number in range(calls + 100):
    began = time.perf_counter()
    connection.request('GET', '/small')
    connection.getresponse().read()
    times.append(time.perf_counter() - began)
times = sorted(times[100:])
figures = {'p50': times[len(times) // 2] * 1000, 'p99': times[len(times) * 99 // 100] * 1000, 'mibPerSecond': 0.0}
if large:
    began, buffer, total = time.perf_counter(), bytearray(1 << 20), 0
    connection.request('GET', '/large')
    answer = connection.getresponse()
    while read := answer.readinto(buffer):
        total += read
    figures['mibPerSecond'] = total / (time.perf_counter() - began) / (1 << 20)
print(json.dumps(figures))
if 'ENCLAVE_SESSION_ID' in os.environ:
    enclave.result(figures)
";

/// Milliseconds for a call on a connection that is kept, and a download.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Calls {
    p50: f64,
    p99: f64,
    mib_per_second: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Egress {
    /// The program on the host.
    direct: Calls,
    /// The program in a sandbox, through a tunnel that is relayed.
    relayed: Calls,
    /// The program in a sandbox, through a binding that adds a bearer token.
    bound: Calls,
}

/// Measures.
pub(super) async fn measure() -> anyhow::Result<Egress> {
    let upstream = TcpListener::bind("127.0.0.1:0")?;
    let port = upstream.local_addr()?.port();
    std::thread::spawn(move || {
        upstream.incoming().flatten().for_each(|stream| drop(std::thread::spawn(|| serve(stream))));
    });
    let server = Server::start("gvisor", &[&format!("--egress-permit=127.0.0.1/32:{port}")]).await?;
    let client = server.client()?;
    let binding = json!({
        "name": "bench", "kind": {"type": "bearer"}, "secret": {"value": "token-of-the-bench"},
        "upstream": {"url": format!("http://127.0.0.1:{port}")},
    });
    client.create_binding(&serde_json::from_value(binding)?).await?;

    let direct = on_host(port)?;
    // By a tunnel through the proxy: the host's loopback address, relayed, would be the sandbox's own.
    let relayed = json!({
        "egress": {"mode": "allowlist", "allow": [{"cidr": "127.0.0.1/32", "ports": [port]}]},
        "env": {"BENCH_HOST": "127.0.0.53", "BENCH_PORT": "3128"},
    });
    let bound = json!({
        "serviceBindings": ["bench"], "env": {"BENCH_HOST": "bench.enclave.internal", "BENCH_PORT": "80"},
    });
    let mut measured = Vec::new();
    for (session, code) in [(relayed, through_the_proxy(port)), (bound, PROGRAM.to_owned())] {
        let mut request = json!({"code": code, "limits": {"cpu": 2.0, "wallClockMs": 300_000}});
        merge(&mut request, session);
        request["env"]["BENCH_CALLS"] = CALLS.to_string().into();
        request["env"]["BENCH_LARGE"] = "1".into();
        let request: CreateSession = serde_json::from_value(request)?;
        let id = client.create(&request).await?.id;
        let result = client.result(id, Duration::from_mins(5)).await?;
        ensure!(
            result.outcome == Outcome::Succeeded,
            "the session ended as {:?}: {}",
            result.outcome,
            result.stderr_tail
        );
        measured.push(serde_json::from_value(result.value().context("no figures")?)?);
    }
    Ok(Egress { direct, relayed: measured[0], bound: measured[1] })
}

/// The same program, whose connection is a tunnel through the proxy.
fn through_the_proxy(port: u16) -> String {
    let plain = "connection = http.client.HTTPConnection(host, port, timeout=120)\n";
    PROGRAM.replace(plain, &format!("{plain}connection.set_tunnel('127.0.0.1', {port})\n"))
}

fn merge(into: &mut Value, more: Value) {
    if let (Some(into), Value::Object(more)) = (into.as_object_mut(), more) {
        into.extend(more);
    }
}

fn on_host(port: u16) -> anyhow::Result<Calls> {
    let output = Command::new("python3")
        .args(["-I", "-c", PROGRAM])
        .env("BENCH_HOST", "127.0.0.1")
        .env("BENCH_PORT", port.to_string())
        .env("BENCH_CALLS", CALLS.to_string())
        .env("BENCH_LARGE", "1")
        .env_remove("ENCLAVE_SESSION_ID")
        .stdin(Stdio::null())
        .output()
        .context("start python3")?;
    ensure!(output.status.success(), "python3: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("the program's figures")
}

/// A service that answers at once: HTTP/1.1 with connections that are kept, on a thread for each.
fn serve(stream: TcpStream) {
    let Ok(reading) = stream.try_clone() else { return };
    // Whoever leaves in the middle has its reasons.
    let _ = stream.set_nodelay(true);
    let (mut lines, mut writing) = (BufReader::new(reading).lines(), stream);
    let zeros = vec![0; 1 << 20];
    while let Some(Ok(request)) = lines.next() {
        for header in lines.by_ref() {
            match header {
                Ok(header) if header.is_empty() => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        let large = request.contains(" /large");
        let length = if large { LARGE_BYTES } else { 2 };
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n");
        let mut sent = writing.write_all(head.as_bytes());
        if large {
            for _ in 0..LARGE_BYTES / zeros.len() {
                sent = sent.and_then(|()| writing.write_all(&zeros));
            }
        } else {
            sent = sent.and_then(|()| writing.write_all(b"ok"));
        }
        if sent.is_err() {
            return;
        }
    }
}

/// For people.
pub(super) fn print(figures: &Egress) {
    let Egress { direct, relayed, bound } = figures;
    println!("egress, {CALLS} calls on one connection and a download of 1 GiB, by the same program:");
    for (name, calls) in
        [("on the host, direct", direct), ("in a sandbox, relayed", relayed), ("in a sandbox, bound", bound)]
    {
        let Calls { p50, p99, mib_per_second } = calls;
        println!("  {name:28} p50 {p50:7.2} ms   p99 {p99:7.2} ms   {mib_per_second:6.0} MiB/s");
    }
    println!(
        "  added by a bound call        p50 {:7.2} ms   p99 {:7.2} ms   (target: at most 1 and 5)",
        bound.p50 - direct.p50,
        bound.p99 - direct.p99
    );
    println!(
        "  download                     {:.0} % of direct relayed, {:.0} % bound   (target: at least 70)",
        relayed.mib_per_second / direct.mib_per_second * 100.0,
        bound.mib_per_second / direct.mib_per_second * 100.0
    );
}
