//! The hostile suite: programs that attack, on every backend that is here, through the public API.
//!
//! Each program under `hostile/` says in its first comment lines what it tries and what must become of it:
//!
//! - `try:` what it tries, in words;
//! - `limits:` `name=value` pairs of the session's limits;
//! - `env:` `NAME=value` pairs;
//! - `expect:` outcomes, and kill reasons behind `killed`, any of which is right;
//! - `expect-exit:` the exit code;
//! - `expect-result:` the exact JSON result;
//! - `sim:` what the simulator models instead of executing.
//!
//! After each of them the audit trail must tell the story to its end, and after all of them nothing may be left, and an
//! honest program must run as if nothing had been.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use client::Client;
use futures::{StreamExt, stream};
use serde_json::Value;

use crate::{
    residue,
    server::{Server, backends},
};
use wire::{AuditType, CreateSession, Language, Outcome, Phase, Session, SessionResult};

/// Sessions at once: enough to be neighbours to one another.
const AT_ONCE: usize = 3;

struct Case {
    name: String,
    language: Language,
    code: String,
    limits: wire::Limits,
    env: BTreeMap<String, String>,
    expect: Vec<String>,
    exit: Option<i32>,
    result: Option<Value>,
}

impl Case {
    fn read(path: &Path) -> Self {
        let code = fs::read_to_string(path).unwrap();
        let family = path.parent().unwrap().file_name().unwrap().to_string_lossy();
        let name = format!("{family}/{}", path.file_name().unwrap().to_string_lossy());
        let said = |key: &str| -> Vec<String> {
            let marks = [format!("# {key}: "), format!("// {key}: ")];
            let line = |line: &str| marks.iter().find_map(|mark| line.strip_prefix(mark)).map(ToOwned::to_owned);
            code.lines().take_while(|l| l.starts_with('#') || l.starts_with("//")).filter_map(line).collect()
        };
        let pairs = |key: &str| -> BTreeMap<String, String> {
            let words = said(key).join(" ");
            let pair = |word: &str| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
            words.split_whitespace().map(|word| pair(word).unwrap_or_else(|| panic!("{name}: {word}"))).collect()
        };
        let limits: serde_json::Map<String, Value> =
            pairs("limits").into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect();
        let case = Self {
            language: if path.extension().is_some_and(|e| e == "js") { Language::Node } else { Language::Python },
            limits: serde_json::from_value(Value::Object(limits)).unwrap(),
            env: pairs("env"),
            expect: said("expect").join(" ").split_whitespace().map(ToOwned::to_owned).collect(),
            exit: said("expect-exit").first().map(|code| code.parse().unwrap()),
            result: said("expect-result").first().map(|json| serde_json::from_str(json).unwrap()),
            name,
            code,
        };
        assert!(!case.expect.is_empty(), "{} expects nothing", case.name);
        case
    }

    /// Gives the names of its sandboxes.
    async fn run(&self, client: &Client) -> Result<Vec<String>, String> {
        let request = CreateSession {
            code: Some(self.code.clone()),
            language: self.language,
            limits: self.limits,
            env: self.env.clone(),
            ..CreateSession::default()
        };
        let created = client.create(&request).await.map_err(|error| format!("not created: {error}"))?;
        let result =
            client.result(created.id, Duration::from_mins(2)).await.map_err(|error| format!("no result: {error}"))?;
        let session = torn_down(client, created.id).await?;
        self.judge(&result)?;
        trail(client, &session).await
    }

    fn judge(&self, result: &SessionResult) -> Result<(), String> {
        let outcome = serde_json::to_value(result.outcome).unwrap();
        let word = result.kill_reason.map_or_else(|| outcome.as_str().unwrap().to_owned(), |r| r.as_str().to_owned());
        let told = || format!("{}; stdout {:?}; stderr {:?}", word, result.stdout_tail, result.stderr_tail);
        if !self.expect.contains(&word) {
            return Err(format!("expected {}, got {}", self.expect.join(" "), told()));
        }
        if self.exit.is_some() && result.exit_code != self.exit {
            return Err(format!("expected exit {:?}, got {:?}: {}", self.exit, result.exit_code, told()));
        }
        if let Some(expected) = &self.result
            && result.value().unwrap_or_default() != *expected
        {
            return Err(format!("expected {expected}, got {:?}: {}", result.result, told()));
        }
        Ok(())
    }
}

async fn torn_down(client: &Client, id: wire::SessionId) -> Result<Session, String> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let session = client.session(id).await.map_err(|error| error.to_string())?;
        if session.phase == Phase::TornDown {
            return Ok(session);
        }
        if tokio::time::Instant::now() > deadline {
            return Err(format!("not torn down: {:?}", session.phase));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The audit trail tells the story, from the creation to the end, once each. Gives the sandboxes that it names.
async fn trail(client: &Client, session: &Session) -> Result<Vec<String>, String> {
    let page = client.audit(session.id, None).await.map_err(|error| error.to_string())?;
    let kinds: Vec<_> = page.items.iter().map(|event| event.kind).collect();
    let ended = match session.outcome {
        Some(Outcome::Killed) => AuditType::QuotaKilled,
        Some(_) | None => AuditType::WorkloadExited,
    };
    let story = [
        AuditType::SessionCreated,
        AuditType::SandboxProvisioned,
        AuditType::SandboxStarted,
        ended,
        AuditType::ResultCollected,
        AuditType::SessionTornDown,
    ];
    if kinds != story {
        return Err(format!("the audit trail reads {kinds:?}"));
    }
    let name = |event: &wire::AuditEvent| event.data.get("sandbox").and_then(Value::as_str).map(ToOwned::to_owned);
    Ok(page.items.iter().filter_map(name).collect())
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
    let mut paths: Vec<_> = fs::read_dir(root)
        .unwrap()
        .flat_map(|family| fs::read_dir(family.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| Case::read(path)).collect()
}

async fn suite(backend: &str) {
    let canary = tempfile::Builder::new().prefix("enclave-canary-").tempfile().unwrap();
    fs::write(canary.path(), "canary-of-the-host").unwrap();
    let server = Server::start(backend, &[]).await;
    let client = server.client();
    let cases = cases();
    assert!(cases.len() >= 35, "only {} hostile programs were found", cases.len());
    let ran: Vec<Result<Vec<String>, String>> = stream::iter(&cases)
        .map(|case| {
            let client = client.clone();
            async move { case.run(&client).await.map_err(|error| format!("{}: {error}", case.name)) }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let failures: Vec<&String> = ran.iter().filter_map(|ran| ran.as_ref().err()).collect();
    assert!(failures.is_empty(), "{} of {} on {backend}:\n{failures:#?}", failures.len(), cases.len());

    let sandboxes: Vec<String> = ran.into_iter().filter_map(Result::ok).flatten().collect();
    assert_eq!(sandboxes.len(), cases.len(), "each had one sandbox");
    assert_eq!(residue::search(&sandboxes, &server.data), Vec::<String>::new());

    let honest =
        CreateSession { code: Some("# sim: result 42\nenclave.result(42)".into()), ..CreateSession::default() };
    let id = client.create(&honest).await.unwrap().id;
    let result = client.result(id, Duration::from_mins(1)).await.unwrap();
    assert_eq!(result.value(), Some(Value::from(42)), "the next session does not run as if nothing had been");
    println!("{} hostile programs on {backend}", cases.len());
    server.audit_verifies().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_programs_are_contained_on_the_simulator_as_modelled() {
    suite("simulator").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_programs_are_contained_by_gvisor() {
    if backends("hostile_programs_are_contained_by_gvisor").contains(&"gvisor") {
        suite("gvisor").await;
    }
}
