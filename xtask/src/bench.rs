//! `cargo xtask bench`: what the platform costs, as ratios and differences against something in the same run.
//!
//! - gVisor: a session over HTTP, cold, against a bare `runsc run` of the same program on the same image, taken in turns;
//! - the same sessions with sandboxes that were booted ahead;
//! - gVisor: turns of a warm session over HTTP, next to `runsc exec`;
//! - simulator: sessions a second through the whole platform, audit on;
//! - egress: calls and a download through the gateway, against the same in a bare sandbox and on the host, and calls
//!   beside a session that has five hundred streams;
//! - the memory of an idle server.

mod bare;
mod egress;
mod neighbour;
mod turns;
mod upstream;

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Args;
use client::Client;
use futures::{StreamExt, stream};
use serde::Serialize;
use wire::{CreateSession, HealthStatus, Outcome, StreamFrame};

use self::bare::Bare;

/// The program of the comparison: `print` for the first output; a result is the platform's own.
const PROGRAM: &str = "print('hello')\n# sim: stdout hello\\n";

/// Between two warm sessions.
const REFILL: Duration = Duration::from_secs(1);

/// Measure the platform.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Print the figures as one JSON object.
    #[arg(long)]
    json: bool,
    /// Cold sessions, and as many bare runs.
    #[arg(long, default_value_t = 40)]
    runs: usize,
    /// Sessions through the simulator.
    #[arg(long, default_value_t = 10_000)]
    sessions: usize,
    /// Simulator sessions under way at once.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Only this part.
    #[arg(long)]
    only: Option<Part>,
}

/// What is measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Cold sessions and turns, next to bare runs.
    Gvisor,
    /// Sessions that find a sandbox ready.
    Warm,
    /// Calls and a download through the gateway.
    Egress,
    /// Sessions through the simulator, and an idle server.
    Simulator,
}

impl BenchArgs {
    fn wants(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    machine: Machine,
    gvisor: Option<Cold>,
    warm: Option<Warm>,
    turns: Option<turns::Turns>,
    egress: Option<egress::Egress>,
    #[serde(flatten)]
    simulator: Option<Simulator>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Simulator {
    #[serde(rename = "simulator")]
    throughput: Throughput,
    idle_server_bytes: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Machine {
    cpus: usize,
    cpu_model: String,
    kernel: String,
}

/// Milliseconds at the median and the 90th percentile.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Spread {
    p50: f64,
    p90: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cold {
    runs: usize,
    bare_runsc_ms: Spread,
    create_to_first_output_ms: Spread,
    create_to_result_ms: Spread,
    /// Median session to its result, less the median bare run.
    overhead_ms: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Warm {
    create_to_first_output_ms: Spread,
    create_to_result_ms: Spread,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throughput {
    sessions: usize,
    clients: usize,
    seconds: f64,
    sessions_per_second: f64,
}

/// Builds, measures, prints.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let built = Command::new("cargo").args(["build", "--release", "--package", "server"]).status()?;
    ensure!(built.success(), "the server does not build");
    let figures = tokio::runtime::Runtime::new()?.block_on(measure(args))?;
    if args.json {
        println!("{}", serde_json::to_string(&figures)?);
    } else {
        print(&figures);
    }
    Ok(())
}

async fn measure(args: &BenchArgs) -> anyhow::Result<Figures> {
    let mut figures =
        Figures { machine: machine(), gvisor: None, warm: None, turns: None, egress: None, simulator: None };
    if args.wants(Part::Simulator) {
        let server = Server::start("simulator", &["--max-queue", "100000", "--max-concurrency", "256"]).await?;
        let idle_server_bytes = server.resident()?;
        let throughput = throughput(&server.client()?, args).await?;
        figures.simulator = Some(Simulator { throughput, idle_server_bytes });
    }
    if args.only == Some(Part::Simulator) {
        return Ok(figures);
    }
    let server = match Server::start("gvisor", &["--warm", "0"]).await {
        Ok(server) => server,
        Err(error) => {
            eprintln!("SKIP bench of gvisor: {error:#}");
            return Ok(figures);
        }
    };
    if args.wants(Part::Gvisor) {
        let client = server.client()?;
        figures.gvisor = Some(cold(&client, args.runs).await?);
        figures.turns = Some(turns::measure(&client, args.runs).await?);
    }
    drop(server);
    if args.wants(Part::Warm) {
        figures.warm = Some(warm(args.runs).await?);
    }
    if args.wants(Part::Egress) {
        figures.egress = Some(egress::measure().await?);
    }
    Ok(figures)
}

/// Sessions and bare runs in turns, so that both see the same machine.
async fn cold(client: &Client, runs: usize) -> anyhow::Result<Cold> {
    let bare = Bare::of(&["python3", "-c", PROGRAM])?;
    let (mut bares, mut firsts, mut results) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..runs + 3 {
        let bare = run_bare(&bare)?;
        let (first, result) = session(client).await?;
        // The first rounds fill caches.
        if round >= 3 {
            bares.push(bare);
            firsts.push(first);
            results.push(result);
        }
    }
    let (bare_runsc_ms, create_to_result_ms) = (spread(bares), spread(results));
    Ok(Cold {
        runs,
        overhead_ms: create_to_result_ms.p50 - bare_runsc_ms.p50,
        bare_runsc_ms,
        create_to_first_output_ms: spread(firsts),
        create_to_result_ms,
    })
}

fn run_bare(bare: &Bare) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let output = bare.run()?;
    let took = began.elapsed();
    ensure!(output.stdout == b"hello\n", "bare runsc: {}", String::from_utf8_lossy(&output.stderr));
    Ok(took)
}

/// Sessions that find a sandbox ready.
async fn warm(runs: usize) -> anyhow::Result<Warm> {
    let server = Server::start("gvisor", &["--warm", "1"]).await?;
    let client = server.client()?;
    let (mut firsts, mut results) = (Vec::new(), Vec::new());
    for round in 0..runs + 3 {
        // Until one is booted again.
        tokio::time::sleep(REFILL).await;
        let (first, result) = session(&client).await?;
        if round >= 3 {
            firsts.push(first);
            results.push(result);
        }
    }
    Ok(Warm { create_to_first_output_ms: spread(firsts), create_to_result_ms: spread(results) })
}

async fn session(client: &Client) -> anyhow::Result<(Duration, Duration)> {
    let request = CreateSession { code: Some(PROGRAM.into()), ..CreateSession::default() };
    let began = Instant::now();
    let id = client.create(&request).await?.id;
    let (mut first, mut result) = (None, None);
    let mut frames = client.stream(id);
    while let Some(frame) = frames.next().await {
        match frame?.1 {
            StreamFrame::Stdout(_) => first = first.or(Some(began.elapsed())),
            StreamFrame::Result(arrived) => {
                ensure!(arrived.outcome == Outcome::Succeeded, "a session ended as {:?}", arrived.outcome);
                result = Some(began.elapsed());
            }
            StreamFrame::Stderr(_)
            | StreamFrame::Audit(_)
            | StreamFrame::Phase(_)
            | StreamFrame::Turn(_)
            | StreamFrame::Gap(_)
            | StreamFrame::End(_) => {}
        }
    }
    Ok((first.context("no output")?, result.context("no result")?))
}

async fn throughput(client: &Client, args: &BenchArgs) -> anyhow::Result<Throughput> {
    let one = || async {
        let request = CreateSession { code: Some(PROGRAM.into()), ..CreateSession::default() };
        let id = client.create(&request).await?.id;
        let result = client.result(id, Duration::from_mins(1)).await?;
        ensure!(result.outcome == Outcome::Succeeded, "a session ended as {:?}", result.outcome);
        Ok(())
    };
    let many = |count: usize| {
        stream::iter(0..count)
            .map(|_| one())
            .buffer_unordered(args.clients)
            .fold(Ok(()), |all, one| async { all.and(one) })
    };
    many(args.sessions / 10).await?;
    let began = Instant::now();
    many(args.sessions).await?;
    let seconds = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let sessions_per_second = args.sessions as f64 / seconds;
    Ok(Throughput { sessions: args.sessions, clients: args.clients, seconds, sessions_per_second })
}

struct Server {
    child: Child,
    port: u16,
    _data: tempfile::TempDir,
}

impl Server {
    async fn start(backend: &str, extra: &[&str]) -> anyhow::Result<Self> {
        let data = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        // Built a moment ago into the directory that this program is in.
        let binary = std::env::current_exe()?.with_file_name("enclave");
        let log = data.path().join("log");
        let child = Command::new(std::env::var_os("ENCLAVE_BINARY").map_or(binary, PathBuf::from))
            .args(["serve", "--profile", "dev", "--backend", backend, "--listen", &format!("127.0.0.1:{port}")])
            .arg("--data-dir")
            .arg(data.path().join("data"))
            .args(extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        let mut server = Self { child, port, _data: data };
        let client = server.client()?;
        let began = Instant::now();
        while !client.readiness().await.is_ok_and(|ready| ready.status == HealthStatus::Ok) {
            let left = server.child.try_wait()?;
            let told = || fs::read_to_string(&log).unwrap_or_default();
            ensure!(left.is_none() && began.elapsed() < Duration::from_mins(1), "the server is not ready: {}", told());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(server)
    }

    fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(&format!("http://127.0.0.1:{}", self.port), None)?)
    }

    fn resident(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn spread(mut times: Vec<Duration>) -> Spread {
    times.sort();
    let at = |percent: usize| times.get(times.len() * percent / 100).map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    Spread { p50: at(50), p90: at(90) }
}

fn machine() -> Machine {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    Machine {
        cpus: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        cpu_model: model.unwrap_or("unknown").to_owned(),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn print(figures: &Figures) {
    let Figures { machine, gvisor, warm, turns, egress, simulator } = figures;
    println!("machine: {} x {}, kernel {}", machine.cpus, machine.cpu_model, machine.kernel);
    let line =
        |name: &str, spread: Spread| println!("  {name:28} p50 {:7.1} ms   p90 {:7.1} ms", spread.p50, spread.p90);
    if let Some(cold) = gvisor {
        println!("gvisor, cold, {} sessions and {} bare runs in turns:", cold.runs, cold.runs);
        line("bare runsc run", cold.bare_runsc_ms);
        line("create to first output", cold.create_to_first_output_ms);
        line("create to result", cold.create_to_result_ms);
        println!("  overhead of the platform     {:.1} ms at the median (target: at most 40)", cold.overhead_ms);
    }
    if let Some(warm) = warm {
        println!("gvisor, with a sandbox booted ahead:");
        line("create to first output", warm.create_to_first_output_ms);
        line("create to result", warm.create_to_result_ms);
    }
    if let Some(figures) = turns {
        turns::print(figures);
    }
    if let Some(figures) = egress {
        egress::print(figures);
    }
    if let Some(Simulator { throughput, idle_server_bytes }) = simulator {
        println!(
            "simulator: {:.0} sessions a second ({} sessions, {} clients; target: at least 1,000)",
            throughput.sessions_per_second, throughput.sessions, throughput.clients
        );
        println!("idle server: {:.1} MiB resident (target: under 50)", *idle_server_bytes as f64 / f64::from(1 << 20));
    }
}
