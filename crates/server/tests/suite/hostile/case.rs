//! One hostile program: what it says of itself, and whether what became of it is right.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use client::Client;
use serde_json::Value;
use wire::{
    AuditEvent, AuditType, CreateSession, Egress, EgressMode, EgressRule, Language, Outcome, Phase, Session,
    SessionResult,
};

pub(super) struct Case {
    pub(super) name: String,
    language: Language,
    code: String,
    limits: wire::Limits,
    env: BTreeMap<String, String>,
    allow: Vec<EgressRule>,
    bind: Vec<String>,
    expect: Vec<String>,
    /// Reason, and what the attempt reads like.
    denied: Vec<(String, String)>,
    /// The same, on backends that execute.
    denied_really: Vec<(String, String)>,
    exit: Option<i32>,
    result: Option<Value>,
}

impl Case {
    /// Reads it; `fill` puts the addresses of this run into its text.
    pub(super) fn read(path: &Path, fill: impl Fn(&str) -> String) -> Self {
        let code = fill(&fs::read_to_string(path).unwrap());
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
            allow: said("allow").iter().map(|rule| serde_json::from_str(rule).unwrap()).collect(),
            bind: said("bind"),
            denied: refusals(&said("expect-denied")),
            denied_really: refusals(&said("expect-denied-really")),
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
    pub(super) async fn run(&self, client: &Client) -> Result<Vec<String>, String> {
        let request = CreateSession {
            code: Some(self.code.clone()),
            language: self.language,
            limits: self.limits,
            env: self.env.clone(),
            egress: Egress {
                mode: if self.allow.is_empty() { EgressMode::DenyAll } else { EgressMode::Allowlist },
                allow: self.allow.clone(),
            },
            service_bindings: self.bind.clone(),
            ..CreateSession::default()
        };
        let created = client.create(&request).await.map_err(|error| format!("not created: {error}"))?;
        let result =
            client.result(created.id, Duration::from_mins(2)).await.map_err(|error| format!("no result: {error}"))?;
        let session = torn_down(client, created.id).await?;
        self.judge(&result)?;
        let events = client.audit(session.id, None).await.map_err(|error| error.to_string())?.items;
        self.judge_denials(&result, &events, session.backend != "simulator")?;
        trail(&session, &events)
    }

    /// Each refusal is in the audit log, with its reason, and in the result.
    fn judge_denials(&self, result: &SessionResult, events: &[AuditEvent], executes: bool) -> Result<(), String> {
        let told: Vec<(&str, &str)> = events
            .iter()
            .filter(|event| matches!(event.kind, AuditType::EgressDenied | AuditType::BindingDenied))
            .map(|event| {
                let field = |name: &str| event.data.get(name).and_then(Value::as_str).unwrap_or_default();
                (
                    field("reason"),
                    if event.kind == AuditType::EgressDenied { field("attempted") } else { field("path") },
                )
            })
            .collect();
        let really = if executes { self.denied_really.as_slice() } else { &[] };
        for (reason, attempted) in self.denied.iter().chain(really) {
            if !told.iter().any(|(why, what)| why == reason && what.contains(attempted.as_str())) {
                return Err(format!("no refusal {reason} of {attempted:?} in the audit log: {told:#?}"));
            }
            if !result.denials.iter().any(|denial| denial.attempted.contains(attempted.as_str())) {
                return Err(format!("no denial of {attempted:?} in the result: {:#?}", result.denials));
            }
        }
        Ok(())
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

fn refusals(lines: &[String]) -> Vec<(String, String)> {
    let pair = |line: &String| line.split_once(' ').map(|(reason, text)| (reason.to_owned(), text.to_owned())).unwrap();
    lines.iter().map(pair).collect()
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
fn trail(session: &Session, events: &[AuditEvent]) -> Result<Vec<String>, String> {
    let kinds: Vec<_> = events.iter().map(|event| event.kind).filter(|kind| !is_traffic(*kind)).collect();
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
    Ok(events.iter().filter_map(name).collect())
}

fn is_traffic(kind: AuditType) -> bool {
    let traffic =
        [AuditType::EgressAllowed, AuditType::EgressDenied, AuditType::BindingInvoked, AuditType::BindingDenied];
    traffic.contains(&kind)
}
