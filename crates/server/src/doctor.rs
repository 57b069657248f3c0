//! `enclave doctor`: what this host can enforce, tried for real.
//!
//! [`host`] looks at what a backend needs and says how to get what is missing. [`trials`] then starts a server for
//! itself, runs programs that try to break each limit in real sandboxes, and judges from outside what became of them: the
//! word `ok` beside a limit means that it was broken against a moment ago, and held.

mod host;
mod trials;

use std::{
    fmt::Write as _,
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use serde::Serialize;

use crate::settings::{Layers, Settings, layers::Flags};

/// Say what this host can enforce, tried for real, and how to get what is missing.
///
/// Exits 0 if a backend that isolates works here. The configuration is read from the environment only.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct DoctorArgs {
    /// Print the findings as one JSON object
    #[arg(long)]
    json: bool,
}

/// How a finding counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// It is there, or it held.
    Ok,
    /// Without it no backend that isolates can be used.
    Missing,
    /// Good to know; nothing depends on it.
    Info,
}

/// Which part of the report a finding belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Group {
    Host,
    Gvisor,
    Enforcement,
}

impl Group {
    fn title(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Gvisor => "backend gvisor",
            Self::Enforcement => "enforced, each tried by a program in a sandbox",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    group: Group,
    name: &'static str,
    status: Status,
    /// What was found.
    detail: String,
    /// What enforces it.
    #[serde(skip_serializing_if = "Option::is_none")]
    mechanism: Option<String>,
    /// What to do about it, when it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Finding {
    fn ok(group: Group, name: &'static str, detail: impl Into<String>) -> Self {
        Self { group, name, status: Status::Ok, detail: detail.into(), mechanism: None, fix: None }
    }

    fn info(group: Group, name: &'static str, detail: impl Into<String>) -> Self {
        Self { status: Status::Info, ..Self::ok(group, name, detail) }
    }

    fn missing(group: Group, name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { status: Status::Missing, fix: Some(fix.into()), ..Self::ok(group, name, detail) }
    }

    fn by(mut self, mechanism: impl Into<String>) -> Self {
        self.mechanism = Some(mechanism.into());
        self
    }
}

#[derive(Debug, Serialize)]
struct Report {
    checks: Vec<Finding>,
    /// The strongest backend that works here.
    backend: Option<&'static str>,
    ok: bool,
}

/// Runs `enclave doctor`.
pub(crate) async fn run(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings::read(&Layers::embedded(Flags::new())?)?;
    let mut checks = host::look(&settings).await;
    checks.extend(trials::run().await);
    let report = conclude(checks);
    let ok = report.ok;
    let text = if args.json {
        serde_json::to_string(&report)? + "\n"
    } else {
        render(&report, std::io::stdout().is_terminal())
    };
    // A reader that has seen enough is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is missing on this host for a backend that isolates, each with what to do about it: for a server that found none.
pub(crate) async fn missing(settings: &Settings) -> Vec<String> {
    let found = host::look(settings).await.into_iter().filter(|finding| finding.status == Status::Missing);
    found
        .map(|finding| {
            let fix = finding.fix.map(|fix| format!("\n    to fix it: {fix}")).unwrap_or_default();
            format!("{}: {}{fix}", finding.name, finding.detail)
        })
        .collect()
}

/// The trials decide: what is missing for them shows in them, and a host that passes them lacks nothing that matters.
fn conclude(checks: Vec<Finding>) -> Report {
    let mut tried = checks.iter().filter(|check| check.group != Group::Host);
    let works = checks.iter().any(|check| check.group == Group::Enforcement)
        && tried.all(|check| check.status != Status::Missing);
    Report { backend: works.then_some("gvisor"), ok: works, checks }
}

fn render(report: &Report, colour: bool) -> String {
    let mut text = String::new();
    let mut group = None;
    let paint = |code: &str, word: &str| if colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() };
    for check in &report.checks {
        if group.replace(check.group) != Some(check.group) {
            let _ = writeln!(text, "{}", check.group.title());
        }
        let status = match check.status {
            Status::Ok => paint("32", "ok     "),
            Status::Missing => paint("31", "MISSING"),
            Status::Info => "info   ".to_owned(),
        };
        let _ = writeln!(text, "  {status}  {:<11} {}", check.name, check.detail);
        if let Some(mechanism) = &check.mechanism {
            let _ = writeln!(text, "                       by {mechanism}");
        }
        if let Some(fix) = &check.fix {
            let _ = writeln!(text, "                       to fix it: {fix}");
        }
    }
    let _ = match report.backend {
        Some(backend) => writeln!(text, "strongest backend that works here: {backend}"),
        None => writeln!(text, "no backend that isolates works here; the simulator executes nothing"),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_works_only_if_every_limit_held() {
        let held = Finding::ok(Group::Enforcement, "memory", "stopped");
        let broke = Finding::missing(Group::Enforcement, "pids", "not stopped", "report it");
        let lacking = Finding::missing(Group::Host, "disk", "1 MiB free", "free some");
        assert!(conclude(vec![held.clone()]).ok);
        assert!(conclude(vec![lacking, held.clone()]).ok, "what the trials managed without is not needed");
        assert!(!conclude(vec![held, broke]).ok);
        assert!(!conclude(vec![]).ok, "nothing was tried");
        assert!(!conclude(vec![Finding::ok(Group::Gvisor, "runsc", "there")]).ok, "nothing was tried");
    }

    #[test]
    fn what_is_missing_is_shown_with_its_fix() {
        let missing = Finding::missing(Group::Gvisor, "runsc", "not in PATH", "make setup");
        let text = render(&conclude(vec![missing.by("hope")]), false);
        for part in
            ["backend gvisor\n", "MISSING  runsc", "by hope", "to fix it: make setup", "no backend that isolates"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
