//! What the way out costs: the same calls of the same service by the same Python program, on the host, in a bare sandbox
//! with gVisor's own network, through a relayed connection, and through a binding.

use std::{
    net::{IpAddr, Ipv4Addr},
    process::{Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use client::Client;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wire::{CreateSession, Outcome};

use super::{
    Server,
    bare::{self, Bare, Network},
    neighbour,
    upstream::Upstream,
};

/// Calls that are timed, after some that are not.
const CALLS: usize = 1000;

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
    /// The program in a bare sandbox, direct; `None` where its network cannot be laid.
    bare: Option<Calls>,
    /// The program in a sandbox, through a tunnel that is relayed.
    relayed: Calls,
    /// The program in a sandbox, through a binding that adds a bearer token.
    bound: Calls,
    /// The same calls while another session has hundreds of streams.
    beside: Calls,
}

/// Measures.
pub(super) async fn measure() -> anyhow::Result<Egress> {
    let upstream = Upstream::start(IpAddr::V4(Ipv4Addr::LOCALHOST))?;
    let port = upstream.port();
    let server = Server::start("gvisor", &[&format!("--egress-permit=127.0.0.1/32:{port}")]).await?;
    let client = server.client()?;
    let binding = json!({
        "name": "bench", "kind": {"type": "bearer"}, "secret": {"value": "token-of-the-bench"},
        "upstream": {"url": format!("http://127.0.0.1:{port}")},
    });
    client.create_binding(&serde_json::from_value(binding)?).await?;

    let direct = on_host(port)?;
    let bare = match Network::lay() {
        Ok(network) => Some(in_bare_sandbox(network)?),
        Err(error) => {
            eprintln!("SKIP bench of calls from a bare sandbox: {error:#}");
            None
        }
    };
    // By a tunnel through the proxy: the host's loopback address, relayed, would be the sandbox's own.
    let relayed = json!({
        "egress": {"mode": "allowlist", "allow": [{"cidr": "127.0.0.1/32", "ports": [port]}]},
        "env": {"BENCH_HOST": "127.0.0.53", "BENCH_PORT": "3128"},
    });
    let bound = json!({
        "serviceBindings": ["bench"], "env": {"BENCH_HOST": "bench.enclave.internal", "BENCH_PORT": "80"},
    });
    let relayed = in_session(&client, relayed, &through_the_proxy(port), true).await?;
    let alone = in_session(&client, bound.clone(), PROGRAM, true).await?;
    let busy = neighbour::start(&client, &upstream).await?;
    let beside = in_session(&client, bound, PROGRAM, false).await?;
    neighbour::stop(&client, &upstream, busy).await?;
    Ok(Egress { direct, bare, relayed, bound: alone, beside })
}

async fn in_session(client: &Client, session: Value, code: &str, large: bool) -> anyhow::Result<Calls> {
    let mut request = json!({"code": code, "limits": {"cpu": 2.0, "wallClockMs": 300_000}});
    merge(&mut request, session);
    request["env"]["BENCH_CALLS"] = CALLS.to_string().into();
    request["env"]["BENCH_LARGE"] = u8::from(large).to_string().into();
    let request: CreateSession = serde_json::from_value(request)?;
    let id = client.create(&request).await?.id;
    let result = client.result(id, Duration::from_mins(5)).await?;
    ensure!(result.outcome == Outcome::Succeeded, "the session ended as {:?}: {}", result.outcome, result.stderr_tail);
    serde_json::from_value(result.value().context("no figures")?).context("the program's figures")
}

/// The program in a sandbox without a platform, and the same service at the other end of its wire.
fn in_bare_sandbox(network: Network) -> anyhow::Result<Calls> {
    let upstream = Upstream::start(IpAddr::V4(bare::HOST))?;
    let env = environment(&bare::HOST.to_string(), upstream.port());
    let bare = Bare::connected(&["python3", "-I", "-c", PROGRAM], &env, network)?;
    figures(&bare.run()?)
}

/// What the program wants to know.
fn environment(host: &str, port: u16) -> [(&'static str, String); 4] {
    [
        ("BENCH_HOST", host.to_owned()),
        ("BENCH_PORT", port.to_string()),
        ("BENCH_CALLS", CALLS.to_string()),
        ("BENCH_LARGE", "1".to_owned()),
    ]
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
        .envs(environment("127.0.0.1", port))
        .env_remove("ENCLAVE_SESSION_ID")
        .stdin(Stdio::null())
        .output()
        .context("start python3")?;
    figures(&output)
}

fn figures(output: &Output) -> anyhow::Result<Calls> {
    ensure!(output.status.success(), "the program: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("the program's figures")
}

/// For people.
pub(super) fn print(figures: &Egress) {
    let Egress { direct, bare, relayed, bound, beside } = figures;
    println!("egress, {CALLS} calls on one connection and a download of 1 GiB, by the same program:");
    let rows = [
        ("on the host, direct", Some(direct)),
        ("in a bare sandbox, direct", bare.as_ref()),
        ("in a sandbox, relayed", Some(relayed)),
        ("in a sandbox, bound", Some(bound)),
    ];
    for (name, calls) in rows {
        let Some(Calls { p50, p99, mib_per_second }) = calls else { continue };
        println!("  {name:28} p50 {p50:7.2} ms   p99 {p99:7.2} ms   {mib_per_second:6.0} MiB/s");
    }
    println!("  bound, beside {} streams    p50 {:7.2} ms   p99 {:7.2} ms", neighbour::STREAMS, beside.p50, beside.p99);
    for (than, calls) in [("a bare sandbox's", bare.as_ref()), ("the host's", Some(direct))] {
        let Some(calls) = calls else { continue };
        println!(
            "  than {than}: a bound call takes {:.2} ms more at p50, {:.2} ms at p99 (target: at most 1 and 5);",
            bound.p50 - calls.p50,
            bound.p99 - calls.p99
        );
        println!(
            "    a download has {:.0} % relayed, {:.0} % bound (at least 70)",
            relayed.mib_per_second / calls.mib_per_second * 100.0,
            bound.mib_per_second / calls.mib_per_second * 100.0
        );
    }
}
