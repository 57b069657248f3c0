//! docs/simulator.md is true: every program in it is played, and what is seen of it is what the page says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{sync::Arc, time::Duration};

use backend::{
    Gateway, Observation, SandboxLimit, SandboxSpec, SessionBackend, Shape, Termination, simulator::Simulator,
};
use model::{
    Language,
    egress::{Deployment, Policy},
    gateway::{FromGateway, GatewayLimits, GatewaySpec},
    limits::Limits,
};
use protocol::{Exit, GuestFrame, GuestLimit, HostFrame, Put, PutKind, Start, Stream};
use tokio::time::{Instant, timeout};

const PAGE: &str = include_str!("../../../docs/simulator.md");
/// Limits of every example, as the page says.
const LIMITS: Limits = Limits {
    cpu_millis: 1000,
    cpu_time_ms: Some(10_000),
    memory_bytes: 128 << 20,
    wall_clock_ms: 60_000,
    pids: 64,
    disk_bytes: 64 << 20,
    output_bytes: 1 << 20,
};
/// Every word of the script language.
const WORDS: [&str; 23] = [
    "stdout", "stderr", "output", "sleep", "cpu", "memory", "fork", "threads", "disk", "result", "mirror", "exit",
    "signal", "raise", "connect", "read", "cat", "hang", "frame", "resolve", "http", "bind", "dns",
];

/// What the sessions with a way out may reach, as the page says.
fn gateway() -> GatewaySpec {
    let egress = serde_json::json!({
        "mode": "allowlist",
        "allow": [{ "domain": "example.org", "ports": [80, 443] }, { "cidr": "192.0.2.0/24" }],
    });
    let binding = serde_json::json!({
        "id": "bnd_00000000-0000-7000-8000-000000000001",
        "spec": {
            "name": "github",
            "kind": { "type": "bearer" },
            "upstream": { "url": "https://api.github.com" },
            "allow": [{ "methods": ["GET"], "paths": ["/user/**"] }],
            "budget": { "calls": 1 },
        },
        "credential": { "value": "secret" },
    });
    GatewaySpec {
        session: "ses_00000000-0000-7000-8000-000000000001".parse().unwrap(),
        policy: Policy::new(&serde_json::from_value(egress).unwrap(), Deployment::default()),
        limits: GatewayLimits::default(),
        bindings: vec![serde_json::from_value(binding).unwrap()],
    }
}

/// A program of the page, and what the page says is to be seen of it.
struct Example {
    line: usize,
    language: Language,
    has_way_out: bool,
    code: String,
    seen: String,
}

fn examples() -> Vec<Example> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String, String)> = None;
    for (at, line) in PAGE.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(kind)) => open = Some((at + 1, kind.to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, _, text)), None) => text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    let language = |kind: &str| match kind.split(' ').next() {
        Some("python") => Some(Language::Python),
        Some("js") => Some(Language::Node),
        Some(_) | None => None,
    };
    let pairs = blocks.windows(2).filter_map(|pair| {
        let [(line, kind, code), (_, next, seen)] = pair else { return None };
        let language = language(kind)?;
        assert_eq!(next, "text", "the program in line {line} is followed by what is seen of it");
        let has_way_out = kind.ends_with(" egress");
        Some(Example { line: *line, language, has_way_out, code: code.clone(), seen: seen.clone() })
    });
    pairs.collect()
}

/// Frames and usage, and how it ended.
async fn play(simulator: &Simulator, example: &Example) -> (Vec<GuestFrame>, Vec<String>, Observation) {
    let egress = example.has_way_out;
    let shape = Shape { image: "default".into(), language: example.language, disk_bytes: LIMITS.disk_bytes, egress };
    let prepared = simulator.prepare(&shape).await.unwrap();
    let spec = SandboxSpec { limits: LIMITS, gateway: egress.then(gateway), grace: Duration::ZERO };
    let sandbox = simulator.assign(prepared, &spec).await.unwrap();
    let told = sandbox.gateway.map(|gateway| tokio::spawn(told(gateway)));
    let (mut sender, mut receiver) = sandbox.channel.assign("ses_1");
    let start = Start {
        session_id: "ses_1".into(),
        language: match example.language {
            Language::Python => protocol::Language::Python,
            Language::Node => protocol::Language::Node,
        },
        code: example.code.clone(),
        args: vec!["one".into()],
        env: vec![("NAME".into(), "value".into())],
        pids: LIMITS.pids,
        output_bytes: LIMITS.output_bytes,
        disk_bytes: LIMITS.disk_bytes,
        entrypoint: None,
        interactive: false,
        stays: false,
    };
    let began = Instant::now();
    let file =
        Put { path: "data.txt".into(), kind: PutKind::File { mode: 0o644 }, data: b"given\n".to_vec(), last: true };
    if example.code.contains("sim: cat") {
        sender.send(&HostFrame::Put(file)).await.unwrap();
    }
    sender.send(&HostFrame::Start(Box::new(start))).await.unwrap();
    let (mut frames, mut ends) = (Vec::new(), Vec::new());
    let wall_clock = Duration::from_millis(LIMITS.wall_clock_ms);
    loop {
        match timeout(wall_clock.saturating_sub(began.elapsed()), receiver.next()).await {
            Ok(Ok(Some(frame))) => frames.push(frame),
            Ok(Ok(None)) => break,
            Ok(Err(error)) => {
                ends.push(format!("refused {error}: {}", std::error::Error::source(&error).unwrap()));
                simulator.kill(&sandbox.id).await.unwrap();
                break;
            }
            Err(_) => {
                ends.push("endless".to_owned());
                simulator.kill(&sandbox.id).await.unwrap();
                break;
            }
        }
    }
    match simulator.wait(&sandbox.id).await.unwrap() {
        Termination::Exceeded(limit) => ends.push(format!("limit {}", name(limit))),
        Termination::Exited | Termination::Killed => {}
        Termination::Lost(detail) => panic!("{detail}"),
    }
    let took = began.elapsed();
    if !took.is_zero() && took < wall_clock {
        // To the hundredth of a second: starting a program takes a few milliseconds of its CPU time.
        let hundredths = u64::try_from((took.as_millis() + 5) / 10).unwrap();
        ends.push(format!("took {:?}", Duration::from_millis(10 * hundredths)));
    }
    if let Some(told) = told {
        ends.extend(told.await.unwrap());
    }
    let observation = simulator.observe(&sandbox.id).await.unwrap();
    assert!(simulator.destroy(&sandbox.id).await.unwrap().is_none());
    (frames, ends, observation)
}

/// What a gateway has said to its end, one line each.
async fn told(mut gateway: Gateway) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(said) = gateway.next().await {
        let FromGateway::Event(event) = said else { continue };
        let text = |field: &str| event.data[field].as_str().unwrap_or_default().to_owned();
        let kind = serde_json::to_value(event.kind).unwrap().as_str().unwrap().to_owned();
        lines.push(match &*kind {
            "egress_allowed" => format!("{kind} {} {} {}", text("destination"), text("address"), text("protocol")),
            "egress_denied" => format!("{kind} {}: {} {}", text("attempted"), text("reason"), text("allowedBy")),
            _ => format!("{kind} {} {} {}", text("name"), text("method"), text("path")),
        });
        assert_eq!(event.denial.is_some(), kind.ends_with("_denied"), "{kind}");
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

fn name(limit: SandboxLimit) -> &'static str {
    match limit {
        SandboxLimit::Cpu => "cpu",
        SandboxLimit::Memory => "memory",
        SandboxLimit::Pids => "pids",
        SandboxLimit::Disk => "disk",
    }
}

/// As the page writes it.
fn show(frames: &[GuestFrame], ends: &[String]) -> String {
    let (mut stdout, mut stderr, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for frame in frames {
        match frame {
            GuestFrame::Output { stream: Stream::Stdout, data } => stdout.extend_from_slice(data),
            GuestFrame::Output { stream: Stream::Stderr, data } => stderr.extend_from_slice(data),
            GuestFrame::Result { json } => rest.push(format!("result {}", String::from_utf8_lossy(json))),
            GuestFrame::Exceeded { limit: GuestLimit::Pids } => rest.push("limit pids".to_owned()),
            GuestFrame::Exceeded { limit: GuestLimit::Output } => rest.push("limit output".to_owned()),
            GuestFrame::Exceeded { limit: GuestLimit::Disk } => rest.push("limit disk".to_owned()),
            GuestFrame::Exited { exit: Exit::Code(code), .. } => rest.push(format!("exit {code}")),
            GuestFrame::Exited { exit: Exit::Signal(signal), .. } => rest.push(format!("signal {signal}")),
            GuestFrame::Fault { message } => rest.push(format!("fault {message}")),
            GuestFrame::NotPut { message, .. } => rest.push(format!("not put {message}")),
            GuestFrame::Hello { .. }
            | GuestFrame::Started { .. }
            | GuestFrame::Turned(_)
            | GuestFrame::File(_)
            | GuestFrame::Terminal(_) => {}
        }
    }
    let stream = |name: &str, bytes: Vec<u8>| match bytes.len() {
        0 => String::new(),
        1..=1000 => format!("{name} {}\n", serde_json::to_string(&String::from_utf8_lossy(&bytes)).unwrap()),
        many => format!("{name} of {many} bytes\n"),
    };
    let rest: String = rest.iter().chain(ends).map(|line| line.clone() + "\n").collect();
    stream("stdout", stdout) + &stream("stderr", stderr) + &rest
}

#[tokio::test(start_paused = true)]
async fn every_example_of_the_page_is_seen_as_the_page_says() {
    let simulator = Simulator::default();
    let examples = examples();
    assert!(examples.len() >= 20, "only {} examples", examples.len());
    for example in &examples {
        let (frames, ends, _) = play(&simulator, example).await;
        assert_eq!(show(&frames, &ends), example.seen, "line {}:\n{}", example.line, example.code);
    }
    let scripts: String = examples.iter().map(|example| example.code.as_str()).collect();
    for word in WORDS {
        assert!(scripts.contains(&format!("sim: {word}")), "no example of {word}");
        assert!(PAGE.contains(&format!("| `{word}")), "{word} is not in the table");
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_and_program_give_the_same_frames_and_usage() {
    let mut differ = 0;
    for example in examples() {
        let simulators = [0, 0, 1].map(|seed| {
            let config = backend::simulator::SimulatorConfig { seed, ..Default::default() };
            Arc::new(Simulator::new(config))
        });
        let [first, again, other] = [
            play(&simulators[0], &example).await,
            play(&simulators[1], &example).await,
            play(&simulators[2], &example).await,
        ];
        assert_eq!(first, again, "line {}", example.line);
        assert_eq!(first.0, other.0, "line {}: a seed changes usage, not what is said", example.line);
        differ += usize::from(first.2 != other.2);
    }
    assert!(differ > 0, "the seed changes nothing");
}
