//! `enclave serve`.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::MetadataExt,
    time::Duration,
};

use client::ListSessions;
use futures::StreamExt;
use wire::{AuditType, CreateSession, HealthStatus, Outcome, Phase, StreamFrame};

use crate::place::Place;

const DEV: &[&str] = &["--profile", "dev", "--backend", "simulator"];

fn program(code: &str) -> CreateSession {
    CreateSession { code: Some(code.into()), ..CreateSession::default() }
}

#[tokio::test]
async fn a_client_can_do_everything_that_the_contract_offers() {
    let place = Place::new();
    let server = place.serve(DEV);
    let client = server.client(None);
    assert_eq!(client.health().await.unwrap().status, HealthStatus::Ok);
    let ready = client.readiness().await.unwrap();
    assert_eq!((ready.status, ready.backends[0].name.as_str()), (HealthStatus::Ok, "simulator"));
    assert!(!client.backends().await.unwrap().items[0].executes);
    let document = client.openapi().await.unwrap();
    assert!(document["paths"]["/v1/sessions"].is_object());

    let mut request = program("# sim: stdout one\\n\n# sim: stderr two\\n\n# sim: result {\"a\": [1, 2]}");
    request.labels.insert("team".into(), "a b".into());
    let created = client.create(&request).await.unwrap();
    let frames: Vec<_> = client.stream(created.id).map(|frame| frame.unwrap().1).collect().await;
    let stdout: String = frames
        .iter()
        .filter_map(|f| if let StreamFrame::Stdout(c) = f { Some(c.text.as_str()) } else { None })
        .collect();
    assert_eq!(stdout, "one\n");
    assert!(matches!(frames.last(), Some(StreamFrame::End(end)) if end.outcome == Outcome::Succeeded));

    let result = client.result(created.id, Duration::from_secs(10)).await.unwrap();
    assert_eq!(result.value(), Some(serde_json::json!({"a": [1, 2]})));
    assert_eq!((result.stdout_tail.as_str(), result.stderr_tail.as_str()), ("one\n", "two\n"));
    let session = client.session(created.id).await.unwrap();
    assert_eq!((session.phase, session.outcome), (Phase::TornDown, Some(Outcome::Succeeded)));
    let kinds: Vec<_> = client.audit(created.id, None).await.unwrap().items.into_iter().map(|e| e.kind).collect();
    assert_eq!(
        kinds,
        [
            AuditType::SessionCreated,
            AuditType::SandboxProvisioned,
            AuditType::SandboxStarted,
            AuditType::WorkloadExited,
            AuditType::ResultCollected,
            AuditType::SessionTornDown,
        ]
    );

    let hanging = client.create(&program("# sim: hang")).await.unwrap();
    assert_eq!(client.delete(hanging.id).await.unwrap().outcome, Some(Outcome::Cancelled));
    let labelled = ListSessions { labels: vec![("team".into(), "a b".into())], ..ListSessions::default() };
    let ids: Vec<_> = client.sessions(&labelled).await.unwrap().items.into_iter().map(|s| s.id).collect();
    assert_eq!(ids, [created.id]);
    let first = client.sessions(&ListSessions { limit: Some(1), ..ListSessions::default() }).await.unwrap();
    assert_eq!(first.items[0].id, hanging.id);
    let next = ListSessions { cursor: first.next_cursor, ..ListSessions::default() };
    assert_eq!(client.sessions(&next).await.unwrap().items[0].id, created.id);
    let one_key =
        (client.create_with_key(&request, "k").await.unwrap().id, client.create_with_key(&request, "k").await);
    assert_eq!(one_key.0, one_key.1.unwrap().id);
}

#[test]
fn what_a_server_makes_is_for_its_user_alone() {
    let place = Place::new();
    let _server = place.serve(DEV);
    let mode = |name: &str| fs::metadata(place.data().join(name)).unwrap().mode() & 0o777;
    assert_eq!(mode("."), 0o700);
    for name in ["enclave.pepper", "enclave.db", "enclave.db-wal", "enclave.db-shm", "enclave.lock"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
}

#[test]
fn the_dev_profile_says_so_loudly() {
    let place = Place::new();
    let mut server = place.serve(DEV);
    let log = server.log();
    assert!(log.contains("DEV PROFILE: nobody is asked who they are."), "{log}");
    assert!(log.contains("acts as the"), "{log}");
    assert!(log.contains(r#""backend":"simulator","isolation":"simulated","profile":"dev""#), "{log}");
    let mut server = place_with_keys().1;
    assert!(!server.log().contains("DEV PROFILE"));
}

fn place_with_keys() -> (Place, crate::place::Server) {
    let place = Place::new();
    let server = place.serve(&["--backend", "simulator"]);
    (place, server)
}

#[test]
fn the_dev_profile_is_for_loopback_only() {
    let place = Place::new();
    for address in ["0.0.0.0:0", "[::]:0"] {
        let left = place.try_serve(&[DEV, &["--metrics-listen", address]].concat()).err().unwrap();
        assert_eq!(left.code, 1);
        assert!(left.stderr.contains("listens on loopback only"), "{}", left.stderr);
    }
    let left = place.run(&["serve", "--profile", "dev", "--backend", "simulator", "--listen", "0.0.0.0:0"]);
    assert_eq!(left.code, 1);
    assert!(left.stderr.contains("listens on loopback only") && left.stderr.contains("key create"), "{}", left.stderr);
    assert!(!place.data().exists(), "nothing was made before that was found");
}

#[test]
fn hosted_cannot_be_had_with_the_simulator() {
    let left = Place::new().try_serve(&["--profile", "hosted", "--backend", "simulator"]).err().unwrap();
    assert_eq!(left.code, 1);
    assert!(left.stderr.contains("refuses the backend simulator"), "{}", left.stderr);
}

#[test]
fn auto_never_takes_the_simulator() {
    let place = Place::new();
    let empty = place.path("images");
    let left = place.try_serve(&["--image-dir", empty.to_str().unwrap(), "--runsc", "/nonexistent"]).err().unwrap();
    assert_eq!(left.code, 1);
    for said in ["no backend works on this host", "to fix it:", "--backend simulator", "enclave doctor"] {
        assert!(left.stderr.contains(said), "{said} in {}", left.stderr);
    }
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let place = Place::new();
    let first = place.serve(DEV);
    let left = place.try_serve(DEV).err().unwrap();
    assert_eq!(left.code, 1);
    assert!(left.stderr.contains(&format!("another server (process {})", first.pid())), "{}", left.stderr);
    drop(first);
    place.serve(DEV);
}

#[test]
fn a_pepper_that_others_can_read_is_refused() {
    let place = Place::new();
    drop(place.serve(DEV));
    let pepper = place.data().join("enclave.pepper");
    fs::set_permissions(&pepper, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let left = place.try_serve(DEV).err().unwrap();
    assert_eq!(left.code, 1);
    assert!(left.stderr.contains("can be read by other users"), "{}", left.stderr);
}

#[test]
fn every_unknown_key_and_every_wrong_value_is_told_at_once() {
    let place = Place::new();
    let file = place.file("a.toml", "listen = '127.0.0.1:0'\nmax_memmory = '1GiB'\n[limits]\ncpu = 1\n");
    let mut command = place.command(&["serve", "--config", &file, "--max-queue", "many"]);
    let output = command.env("ENCLAVE_MAX_PIDSS", "5").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for fault in ["max_memmory in", "did you mean max_memory?", "limits in", "ENCLAVE_MAX_PIDSS is not a key"] {
        assert!(said.contains(fault), "{fault} in {said}");
    }
    let left = place.run(&["serve", "--max-queue", "many", "--backend", "kubernetes", "--body-limit", "1"]);
    assert_eq!(left.code, 2);
    for fault in ["--max-queue: ", "does not have the backend kubernetes yet", "--body-limit: "] {
        assert!(left.stderr.contains(fault), "{fault} in {}", left.stderr);
    }
    assert_eq!(place.run(&["serve", "--no-such-flag"]).code, 2);
    assert_eq!(place.run(&["serve", "--config", "/nonexistent.toml"]).code, 2);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let place = Place::new();
    let file = place.file("a.toml", "profile = 'dev'\nbackend = 'gvisor'\nmax_concurrency = 3\nlog_level = 'error'\n");
    let mut command = place.command(&["serve", "--listen", "127.0.0.1:0", "--backend", "simulator", "--config", &file]);
    // With `log_level = error` nothing would be said on the way.
    let mut child = command
        .env("ENCLAVE_LOG_LEVEL", "info")
        .env("ENCLAVE_BACKEND", "auto")
        .env("ENCLAVE_MAX_CONCURRENCY", "5")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let said = lines.find_map(|line| line.ok().filter(|line| line.contains("listening")));
    child.kill().unwrap();
    child.wait().unwrap();
    let said = said.unwrap();
    for fact in [r#""backend":"simulator""#, r#""max_concurrency":5"#, r#""profile":"dev""#] {
        assert!(said.contains(fact), "{fact} in {said}");
    }
}

/// Sends a request by hand; gives the whole answer.
fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_a_listener_of_their_own() {
    let place = Place::new();
    let mut server = place.serve(&[DEV, &["--metrics-listen", "127.0.0.1:0"]].concat());
    let log = server.log();
    let metrics = log.lines().find(|line| line.contains("\"message\":\"metrics\"")).unwrap();
    let metrics = metrics.split("http://").nth(1).unwrap().split('/').next().unwrap();
    let client = server.client(None);
    let created = client.create(&program("# sim: exit 3")).await.unwrap();
    client.result(created.id, Duration::from_secs(10)).await.unwrap();

    let text = ask(metrics, "GET /metrics");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    for line in [
        "# HELP enclave_sessions_created_total ",
        "enclave_sessions_created_total{backend=\"simulator\"} 1",
        "enclave_sessions_finished_total{outcome=\"failed\",reason=\"none\"} 1",
        "enclave_sandbox_boot_seconds_bucket{backend=\"simulator\",le=\"0.005\"}",
        "enclave_build_info{",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!text.contains("ses_"), "no ids in metrics: {text}");
    assert!(ask(metrics, "GET /v1/sessions").starts_with("HTTP/1.1 404"));
    assert!(ask(metrics, "POST /metrics").starts_with("HTTP/1.1 405"));
    let api = server.url.strip_prefix("http://").unwrap();
    assert!(ask(api, "GET /metrics").starts_with("HTTP/1.1 404"));
}

#[test]
fn an_idle_server_is_small_and_cannot_be_dumped() {
    let place = Place::new();
    let server = place.serve(DEV);
    let proc = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", server.pid())).unwrap();
    let status = proc("status");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 50 * 1024, "{kib} KiB");
    let limits = proc("limits");
    let limit = |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    let words: Vec<_> = limit("Max core file size").split_whitespace().map(str::to_owned).collect();
    assert_eq!(words[4..6], ["0", "0"]);
    let words: Vec<_> = limit("Max open files").split_whitespace().map(str::to_owned).collect();
    assert_eq!(words[3], words[4], "as many files as the host allows");
}
