//! Faults: the server is killed, flooded, cut off and asked to leave, and nobody loses anything that was promised.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::StreamExt;

use crate::{
    residue,
    server::{Server, backends},
};
use wire::{AuditType, CreateSession, FaultCode, Outcome, Phase, SessionId, StreamFrame};

fn program(code: &str) -> CreateSession {
    CreateSession { code: Some(code.into()), ..CreateSession::default() }
}

/// Long enough to be under way when the server dies, in several stages of its life.
const SLOW: &str = "# sim: sleep 2s\nimport time\ntime.sleep(2)\nenclave.result(1)";

/// A small generator, so that a failure can be run again: the seed is printed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

async fn killed_at_twenty_moments(backend: &str) {
    let seed = u64::from(std::process::id()) | 1;
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let mut server = Server::start(backend, &["--max-concurrency", "4"]).await;
    let mut known: Vec<SessionId> = Vec::new();
    for round in 0..20 {
        let client = server.client();
        let load = tokio::spawn(async move {
            let mut made = Vec::new();
            for _ in 0..6 {
                match client.create(&program(SLOW)).await {
                    Ok(session) => made.push(session.id),
                    Err(_) => break,
                }
            }
            made
        });
        tokio::time::sleep(Duration::from_millis(dice.roll(1200))).await;
        server.kill();
        load.abort();
        if let Ok(made) = load.await {
            known.extend(made);
        }
        server.restart().await;
        let client = server.client();
        let sessions = client.sessions(&client::ListSessions { limit: Some(100), ..Default::default() }).await.unwrap();
        for session in sessions.items {
            assert_eq!(session.phase, Phase::TornDown, "round {round}: {session:#?}");
            let outcome = session.outcome.unwrap();
            if outcome == Outcome::Faulted {
                assert_eq!(session.fault.as_ref().unwrap().code, FaultCode::ServerRestarted, "{session:#?}");
            } else {
                assert_eq!(outcome, Outcome::Succeeded, "{session:#?}");
            }
            let trail = client.audit(session.id, None).await.unwrap().items;
            assert_eq!(trail.first().unwrap().kind, AuditType::SessionCreated);
            assert_eq!(trail.last().unwrap().kind, AuditType::SessionTornDown);
            assert_eq!(client.result(session.id, Duration::ZERO).await.unwrap().outcome, outcome);
            known.push(session.id);
        }
        server.audit_verifies().unwrap();
    }
    known.sort();
    known.dedup();
    assert!(known.len() >= 20, "only {} sessions were under way", known.len());

    let client = server.client();
    let mut sandboxes = Vec::new();
    for id in &known {
        let trail = client.audit(*id, None).await.unwrap().items;
        let named = trail.iter().filter(|event| event.kind == AuditType::SandboxProvisioned);
        sandboxes.extend(named.map(|event| event.data["sandbox"].as_str().unwrap().to_owned()));
    }
    assert!(!sandboxes.is_empty());
    assert_eq!(residue::search(&sandboxes, &server.data), Vec::<String>::new());
    // Sandboxes that died before anybody had recorded their names leave nothing either.
    let groups = server.groups();
    assert_eq!(groups.is_empty(), backend == "simulator", "{groups:?}");
    let left = groups.iter().map(PathBuf::as_path).chain([server.data.as_path()]).flat_map(sandboxes_below);
    assert_eq!(left.collect::<Vec<_>>(), Vec::<PathBuf>::new());
    println!("{} sessions, {} sandboxes on {backend}", known.len(), sandboxes.len());
}

/// What is named after a sandbox, at any depth.
pub(crate) fn sandboxes_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (found, others): (Vec<_>, Vec<_>) =
        entries.partition(|path| path.file_name().unwrap().to_string_lossy().starts_with("sbx-"));
    let below = others.iter().filter(|path| path.is_dir()).flat_map(|path| sandboxes_below(path));
    found.into_iter().chain(below).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulator_survives_kill_9_at_twenty_random_moments() {
    killed_at_twenty_moments("simulator").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gvisor_survives_kill_9_at_twenty_random_moments() {
    if backends("gvisor_survives_kill_9_at_twenty_random_moments").contains(&"gvisor") {
        killed_at_twenty_moments("gvisor").await;
    }
}

async fn two_hundred_through_a_ceiling_of_eight(backend: &str) {
    const LINES: usize = 20;
    let server = Server::start(backend, &["--max-concurrency", "8"]).await;
    let client = server.client();
    let run = |n: usize| {
        let (client, server) = (client.clone(), &server);
        async move {
            let script = (0..LINES).map(|line| format!("# sim: stdout {n} {line}\\n\n")).collect::<String>();
            let code = format!(
                "{script}# sim: result {n}\nfor line in range({LINES}):\n    print({n}, line)\nenclave.result({n})"
            );
            let id = client.create(&program(&code)).await.unwrap().id;
            let (mut text, mut last, mut result) = (String::new(), 0, None);
            let mut frames = client.stream(id);
            while let Some(frame) = frames.next().await {
                let (seq, frame) = frame.unwrap();
                assert!(seq > last, "frame {seq} came after frame {last}");
                last = seq;
                match frame {
                    StreamFrame::Stdout(chunk) => text.push_str(&chunk.text),
                    StreamFrame::Result(arrived) => result = Some(*arrived),
                    StreamFrame::Gap(gap) => panic!("{gap:?}"),
                    StreamFrame::Stderr(_)
                    | StreamFrame::Audit(_)
                    | StreamFrame::Phase(_)
                    | StreamFrame::Turn(_)
                    | StreamFrame::End(_) => {}
                }
            }
            let expected: String = (0..LINES).map(|line| format!("{n} {line}\n")).collect();
            let result = result.unwrap();
            assert_eq!(
                (result.outcome, result.value()),
                (Outcome::Succeeded, Some(n.into())),
                "session {n}: {:?} {}\n{}",
                result.fault,
                result.stderr_tail,
                server.log()
            );
            assert_eq!(text, expected);
        }
    };
    // The first ones warm up whatever a server allocates once.
    futures::stream::iter(0..40).map(run).buffer_unordered(40).collect::<()>().await;
    let before = server.resident();
    futures::stream::iter(40..240).map(run).buffer_unordered(200).collect::<()>().await;
    let after = server.resident();
    let grown = after.saturating_sub(before);
    println!("{backend}: {before} bytes resident before 200 sessions, {after} after");
    assert!(grown < 24 << 20, "the server grew by {grown} bytes");
    server.audit_verifies().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_sessions_pass_a_ceiling_of_eight_on_the_simulator() {
    two_hundred_through_a_ceiling_of_eight("simulator").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_sessions_pass_a_ceiling_of_eight_on_gvisor() {
    if backends("two_hundred_sessions_pass_a_ceiling_of_eight_on_gvisor").contains(&"gvisor") {
        two_hundred_through_a_ceiling_of_eight("gvisor").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_sessions_finish_and_leaves_nothing() {
    for backend in backends("sigterm_lets_sessions_finish_and_leaves_nothing") {
        let mut server = Server::start(backend, &["--max-concurrency", "3"]).await;
        let client = server.client();
        let mut running = Vec::new();
        for _ in 0..3 {
            let id = client.create(&program(SLOW)).await.unwrap().id;
            let mut frames = client.stream(id);
            while let Some(frame) = frames.next().await {
                if matches!(frame.unwrap().1, StreamFrame::Phase(change) if change.phase == Phase::Running) {
                    break;
                }
            }
            running.push(id);
        }
        let queued = client.create(&program(SLOW)).await.unwrap().id;
        let (success, took) = server.terminate();
        assert!(success, "{}", server.log());
        assert!(took < Duration::from_secs(20), "{took:?}");
        server.restart().await;
        for id in running {
            assert_eq!(client.session(id).await.unwrap().outcome, Some(Outcome::Succeeded), "on {backend}");
        }
        let queued = client.session(queued).await.unwrap();
        assert_eq!(queued.fault.unwrap().code, FaultCode::ServerDrained, "on {backend}");
        assert_eq!(queued.phase, Phase::TornDown);
    }
}
