//! `enclave demo`: hostile and honest programs through the public API, each verdict shown with what enforced it.
//!
//! Every program really runs on the backend that was found; each has an expectation, and the exit code says whether all
//! of them were met. Afterwards the host is searched for anything that was left.

mod cases;
mod forge;
pub(crate) mod residue;
mod upstream;

use std::{
    io::{IsTerminal, Write},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use client::Client;
use engine::Ids;
use futures::StreamExt;
use serde::Serialize;
use wire::{
    AuditType, BindingAllow, BindingKind, BindingSecret, BindingSpec, BindingUpstream, CreateBinding, CreateSession,
    Egress, EgressMode, Session, SessionResult, Source, StreamFrame,
};

use crate::{
    demo::{
        cases::{BINDING, Canary, Case, GIT_BINDING, REPOSITORY, Stage},
        forge::Forge,
        upstream::Upstream,
    },
    embedded::{Embedded, EmbeddedOptions},
};

/// Lines of a program's output that are shown.
const SHOWN_LINES: usize = 4;

/// Run hostile and honest programs, and show what becomes of them.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Print the checks as one JSON object, the last line of stdout.
    #[arg(long)]
    json: bool,
    /// Backend to run on; by default the strongest that works here. The simulator only when named.
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
}

/// One check, as `--json` shows it.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    expected: String,
    observed: String,
    ok: bool,
    ms: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    checks: Vec<Check>,
    ok: bool,
}

/// Runs all cases.
pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let mut screen = Screen::new();
    let upstream = Upstream::start(token()).await.context("start the demo's own service")?;
    let forge = match forge(&upstream.token) {
        Ok(forge) => Some(forge),
        Err(error) => {
            screen.say(&format!("note      no repository is cloned: {error}"));
            None
        }
    };
    // Loopback is the host itself, which no session may reach unless the deployment permits it.
    let ports = forge.iter().map(|forge| forge.port).chain([upstream.port]);
    let permit = Some(ports.map(|port| format!("127.0.0.1/32:{port}")).collect::<Vec<_>>().join(","));
    let embedded = Embedded::start(EmbeddedOptions { backend: args.backend, permit }).await?;
    let client = embedded.client();
    let backend = client.backends().await?.items.into_iter().next().context("the server has a backend")?;
    screen.say(&format!("backend   {} ({})", backend.name, backend.isolation.as_str()));
    screen.say(&format!("kernel    {}", backend.enforcement.kernel));
    if !backend.executes {
        screen.say("note      this backend is a model: no program is executed, every verdict below is predicted");
    }
    screen.say("");

    let canary = Canary::plant().context("plant the host's canary")?;
    let url = format!("http://127.0.0.1:{}", upstream.port);
    let reads = BindingAllow { methods: vec!["GET".into()], paths: Vec::new() };
    let api = binding(BINDING, BindingKind::Bearer, url, vec![reads], &upstream.token);
    client.create_binding(&api).await.context("make the binding")?;
    // A model has nothing to clone with.
    let forge = forge.filter(|_| backend.executes);
    if let Some(forge) = &forge {
        let kind = BindingKind::Git { username: "x-access-token".into() };
        let git = binding(GIT_BINDING, kind, forge.url("/private"), Vec::new(), &upstream.token);
        client.create_binding(&git).await.context("make the binding")?;
    }
    let stage = Stage { canary, upstream, forge, executes: backend.executes };
    let (mut checks, mut sessions) = (Vec::new(), Vec::new());
    for case in cases::all(&stage) {
        screen.say(&format!("{}: {}", case.name, case.story));
        let began = Instant::now();
        let (check, session) = match attempt(&client, &case, &stage, &mut screen).await {
            Ok((check, session)) => (check, Some(session)),
            Err(error) => (failed(&case, &error, began), None),
        };
        screen.verdict(&check, session.as_ref());
        sessions.extend(session);
        checks.push(check);
    }
    checks.push(secret_check(&client, &sessions, embedded.data(), &stage.upstream.token, &mut screen).await);
    checks.push(residue_check(&client, &sessions, embedded.data(), &mut screen).await);
    let began = Instant::now();
    let verified = embedded.shutdown_and_verify().await;
    checks.push(audit_check(verified, began, &mut screen));

    let ok = checks.iter().all(|check| check.ok);
    let met = checks.iter().filter(|check| check.ok).count();
    screen.say(&format!("{met} of {} as expected", checks.len()));
    if args.json {
        let report = serde_json::to_string(&Report { checks, ok })?;
        writeln!(std::io::stdout(), "{report}")?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn attempt(client: &Client, case: &Case, stage: &Stage, screen: &mut Screen) -> anyhow::Result<(Check, Session)> {
    let request = CreateSession {
        code: case.source.is_none().then(|| case.code.to_owned()),
        source: case.source.clone().map(Source::Git),
        language: case.language,
        limits: case.limits,
        env: case.env.clone(),
        egress: Egress {
            mode: if case.allow.is_some() { EgressMode::Allowlist } else { EgressMode::DenyAll },
            allow: case.allow.clone().unwrap_or_default(),
        },
        service_bindings: case.bind.clone(),
        ..CreateSession::default()
    };
    let began = Instant::now();
    let created = client.create(&request).await?;
    let (mut result, mut shown) = (None, 0);
    let mut frames = client.stream(created.id);
    while let Some(frame) = frames.next().await {
        match frame?.1 {
            StreamFrame::Stdout(chunk) | StreamFrame::Stderr(chunk) => {
                for line in chunk.text.lines() {
                    if shown < SHOWN_LINES {
                        screen.output(line);
                    }
                    shown += 1;
                }
            }
            StreamFrame::Result(arrived) => result = Some(*arrived),
            StreamFrame::Audit(_)
            | StreamFrame::Phase(_)
            | StreamFrame::Turn(_)
            | StreamFrame::Gap(_)
            | StreamFrame::End(_) => {}
        }
    }
    if shown > SHOWN_LINES {
        screen.output("...");
    }
    let ms = since(began);
    let result = result.context("the stream ended without a result")?;
    let session = client.session(created.id).await?;
    let observed = observe(case, &result, stage);
    let ok = observed == case.expected;
    Ok((Check { name: case.name, expected: case.expected.clone(), observed, ok, ms }, session))
}

/// Milliseconds.
fn since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What happened, in the words of the expectation.
fn observe(case: &Case, result: &SessionResult, stage: &Stage) -> String {
    let outcome = serde_json::to_value(result.outcome).ok();
    let mut words = outcome.as_ref().and_then(|word| word.as_str()).unwrap_or("unknown").to_owned();
    if let Some(reason) = result.kill_reason {
        words = format!("{words}: {}", reason.as_str());
    }
    if let Some(fault) = &result.fault {
        words = format!("{words}: {}", fault.detail);
    }
    if let Some(judge) = case.judge {
        words = format!("{words}; {}", judge(result, stage));
    }
    words
}

fn failed(case: &Case, error: &anyhow::Error, began: Instant) -> Check {
    let ms = since(began);
    Check { name: case.name, expected: case.expected.clone(), observed: format!("{error:#}"), ok: false, ms }
}

/// A token that nobody has seen.
fn token() -> String {
    format!("demo-{}", hex::encode(Ids::from_os().bytes::<16>()))
}

/// A service of the demo's, for programs that are not given its token.
fn binding(name: &str, kind: BindingKind, url: String, allow: Vec<BindingAllow>, token: &str) -> CreateBinding {
    let upstream = BindingUpstream { url, ca_pem: None };
    CreateBinding {
        spec: BindingSpec { name: name.to_owned(), kind, upstream, allow, budget: None },
        secret: BindingSecret { value: token.to_owned(), ..BindingSecret::default() },
    }
}

/// A git server with the demo's private repository.
fn forge(token: &str) -> std::io::Result<Forge> {
    let forge = Forge::start(token)?;
    let program = include_str!("demo/programs/cloned.py");
    forge.publish(REPOSITORY, &format!("cat > main.py <<'END'\n{program}END\necho data > data.txt"))?;
    Ok(forge)
}

/// The token is nowhere but where it has to be: not in what is told of the sessions, not in a file of the server.
async fn secret_check(client: &Client, sessions: &[Session], data: &Path, token: &str, screen: &mut Screen) -> Check {
    screen.say("token: hunted in results, audit trails and every file of the server");
    let began = Instant::now();
    let (mut searched, mut copies) = (0, Vec::new());
    for session in sessions {
        let told = match (client.result(session.id, Duration::ZERO).await, client.audit(session.id, None).await) {
            (Ok(result), Ok(page)) => serde_json::to_string(&(result, page)).unwrap_or_default(),
            (Err(error), _) | (_, Err(error)) => {
                copies.push(format!("{}: {error}", session.id));
                continue;
            }
        };
        searched += 1;
        if told.contains(token) {
            copies.push(format!("what is told of {}", session.id));
        }
    }
    let (files, found) = residue::copies(data, token);
    searched += files;
    copies.extend(found.iter().map(|file| file.display().to_string()));
    screen.detail(&format!("searched {searched} results, trails and files"));
    let observed = if copies.is_empty() { "0 copies".to_owned() } else { copies.join("; ") };
    let check = Check {
        name: "token",
        expected: "0 copies".into(),
        ok: searched > sessions.len() && observed == "0 copies",
        observed,
        ms: since(began),
    };
    screen.verdict(&check, None);
    check
}

/// Nothing is left: the audit log says so, and so does a look at the host.
async fn residue_check(client: &Client, sessions: &[Session], data: &Path, screen: &mut Screen) -> Check {
    screen.say("residue: what is left of all this");
    let began = Instant::now();
    let mut left = Vec::new();
    let mut sandboxes = Vec::new();
    for session in sessions {
        match client.audit(session.id, None).await {
            Ok(page) => {
                let torn_down = page.items.iter().any(|event| event.kind == AuditType::SessionTornDown);
                if !torn_down {
                    left.push(format!("{} was not torn down", session.id));
                }
                sandboxes.extend(
                    page.items.iter().filter(|event| event.kind == AuditType::SandboxProvisioned).filter_map(|event| {
                        event.data.get("sandbox").and_then(|name| name.as_str()).map(ToOwned::to_owned)
                    }),
                );
            }
            Err(error) => left.push(format!("{} has no audit trail: {error}", session.id)),
        }
    }
    if sandboxes.is_empty() {
        left.push("no sandbox was seen".to_owned());
    }
    left.extend(residue::search(&sandboxes, data));
    let observed = if left.is_empty() { "nothing".to_owned() } else { left.join("; ") };
    let ms = since(began);
    let check = Check { name: "residue", expected: "nothing".into(), ok: observed == "nothing", observed, ms };
    screen.detail(&format!(
        "looked for processes, cgroups, mounts and files of {} sandboxes on this host",
        sandboxes.len()
    ));
    screen.verdict(&check, None);
    check
}

fn audit_check(verified: anyhow::Result<u64>, began: Instant, screen: &mut Screen) -> Check {
    let ms = since(began);
    screen.say("audit: the log's hash chain, checked from the first entry to the last");
    let (observed, ok) = match verified {
        Ok(0) => ("the log is empty".to_owned(), false),
        Ok(entries) => {
            screen.detail(&format!("{entries} entries"));
            ("verified".to_owned(), true)
        }
        Err(error) => (format!("{error:#}"), false),
    };
    let check = Check { name: "audit", expected: "verified".into(), observed, ok, ms };
    screen.verdict(&check, None);
    check
}

/// Where people look: stderr, so that stdout is data.
struct Screen {
    colour: bool,
}

impl Screen {
    fn new() -> Self {
        Self { colour: std::io::stderr().is_terminal() }
    }

    #[expect(clippy::unused_self, reason = "a screen is what has the say")]
    fn say(&self, line: &str) {
        // A closed terminal is no reason to stop the checks.
        let _ = writeln!(std::io::stderr(), "{line}");
    }

    /// A line of a program: untrusted, so nothing of it reaches the terminal as a command.
    fn output(&mut self, line: &str) {
        let shown: String = line.chars().take(100).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        self.say(&format!("    | {shown}"));
    }

    fn detail(&mut self, line: &str) {
        self.say(&format!("    {line}"));
    }

    fn verdict(&mut self, check: &Check, session: Option<&Session>) {
        let (mark, colour) = if check.ok { ("ok", "\x1b[32m") } else { ("FAILED", "\x1b[31m") };
        let mark = if self.colour { format!("{colour}{mark}\x1b[0m") } else { mark.to_owned() };
        self.say(&format!("  {mark}  {} ({} ms)", check.observed, check.ms));
        if !check.ok {
            self.say(&format!("      expected {}", check.expected));
        }
        if let Some(mechanism) = session.and_then(mechanism) {
            self.say(&format!("      by {mechanism}"));
        }
        self.say("");
    }
}

/// What enforced the verdict.
fn mechanism(session: &Session) -> Option<&str> {
    let enforcement = &session.enforcement;
    let reason = session.kill_reason?;
    Some(match reason {
        wire::KillReason::CpuExceeded => &enforcement.cpu,
        wire::KillReason::MemoryExceeded => &enforcement.memory,
        wire::KillReason::PidsExceeded => &enforcement.pids,
        wire::KillReason::DiskExceeded => &enforcement.disk,
        wire::KillReason::OutputExceeded => "bytes counted by the server as they leave the sandbox",
        wire::KillReason::WallClockExceeded
        | wire::KillReason::IdleTtlExceeded
        | wire::KillReason::MaxLifetimeExceeded
        | wire::KillReason::TurnBudgetExceeded
        | wire::KillReason::TurnTimeoutExceeded => &enforcement.wall_clock,
    })
}
