//! Programs that try to break what holds them, in real sandboxes, through the public API.
//!
//! Each is small and ends within a second or two where its limit holds. What became of it is judged from outside: by the
//! session's outcome and accounting, by what a listener of the host saw, by looking for what is left.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use client::Client;
use serde_json::Value;
use wire::{AuditType, CreateSession, Enforcement, KillReason, Limits, SessionResult};

use super::{Finding, Group};
use crate::{
    backends::{NoBackend, chain},
    demo::residue,
    embedded::{Embedded, EmbeddedOptions},
};

const MIB: u64 = 1 << 20;
/// How long a trial may take in all; the limits end it far sooner.
const PATIENCE: Duration = Duration::from_secs(30);
/// What to do about a limit that did not hold.
const BROKEN: &str = "take no sessions on this host, and report it: see SECURITY.md";

/// What a program tried, and how to tell that it failed.
struct Trial {
    code: &'static str,
    limits: Limits,
    claims: &'static [Claim],
}

/// One thing that is enforced.
struct Claim {
    name: &'static str,
    mechanism: fn(&Enforcement) -> &str,
    /// What happened, in words; an error when it is not what was promised.
    judge: fn(&SessionResult) -> Result<String, String>,
}

fn trials() -> [Trial; 7] {
    let limits = Limits { wall_clock_ms: Some(20_000), ..Limits::default() };
    [
        Trial { code: include_str!("programs/look.py"), limits, claims: &[KERNEL, IDENTITY, EGRESS] },
        Trial {
            code: "import time\nprint('x', flush=True)\nwhile True: pass\n",
            limits: Limits { cpu: Some(0.2), wall_clock_ms: Some(2_000), ..limits },
            claims: &[CPU_RATE, WALL_CLOCK],
        },
        Trial {
            code: "while True: pass\n",
            limits: Limits { cpu_time_ms: Some(700), ..limits },
            claims: &[Claim {
                name: "cpu time",
                mechanism: |enforcement| &enforcement.cpu,
                judge: |result| killed(result, KillReason::CpuExceeded),
            }],
        },
        Trial {
            code: "kept = []\nwhile True: kept.append(bytearray(b'x' * (1 << 20)))\n",
            limits: Limits { memory_bytes: Some(64 * MIB), ..limits },
            claims: &[Claim {
                name: "memory",
                mechanism: |enforcement| &enforcement.memory,
                judge: |result| killed(result, KillReason::MemoryExceeded),
            }],
        },
        Trial {
            code: "import os, time\nwhile True:\n    try:\n        if os.fork() == 0: time.sleep(60)\n    except OSError: time.sleep(0.1)\n",
            limits: Limits { pids: Some(16), ..limits },
            claims: &[Claim {
                name: "pids",
                mechanism: |enforcement| &enforcement.pids,
                judge: |result| killed(result, KillReason::PidsExceeded),
            }],
        },
        Trial {
            code: "f = open('/tmp/f', 'wb')\nwhile True: f.write(b'x' * (1 << 20)); f.flush()\n",
            limits: Limits { disk_bytes: Some(16 * MIB), ..limits },
            claims: &[Claim {
                name: "disk",
                mechanism: |enforcement| &enforcement.disk,
                judge: |result| killed(result, KillReason::DiskExceeded),
            }],
        },
        Trial {
            code: "while True: print('x' * 4096)\n",
            limits: Limits { output_bytes: Some(64 << 10), ..limits },
            claims: &[Claim {
                name: "output",
                mechanism: |_| "bytes counted by the server as they leave the sandbox",
                judge: |result| killed(result, KillReason::OutputExceeded),
            }],
        },
    ]
}

const KERNEL: Claim = Claim {
    name: "kernel",
    mechanism: |enforcement| &enforcement.kernel,
    judge: |result| {
        let host = rustix::system::uname().release().to_string_lossy().into_owned();
        let inside = text(result, "release")?;
        if inside == host {
            return Err(format!("the workload sees the host's own kernel, {host}"));
        }
        Ok(format!("the workload sees kernel {inside}, and not this host's"))
    },
};

const IDENTITY: Claim = Claim {
    name: "identity",
    mechanism: |_| "user 65534 without capabilities; a read-only root file system",
    judge: |result| {
        let (uid, capabilities) = (text(result, "uid")?, text(result, "capabilities")?);
        if uid == "0" || capabilities.bytes().any(|digit| digit != b'0') {
            return Err(format!("the workload is user {uid} with capabilities {capabilities}"));
        }
        match text(result, "written")?.as_str() {
            "" => Ok(format!("the workload is user {uid}, has no capability, and could not change its root")),
            written => Err(format!("the workload wrote to {written}")),
        }
    },
};

const EGRESS: Claim = Claim {
    name: "egress",
    mechanism: |enforcement| &enforcement.egress,
    judge: |result| match text(result, "reached")?.as_str() {
        "" => Ok(format!("{} ways out tried, none led anywhere", text(result, "tried")?)),
        reached => Err(format!("the workload reached {reached}")),
    },
};

const CPU_RATE: Claim = Claim {
    name: "cpu rate",
    mechanism: |enforcement| &enforcement.cpu,
    judge: |result| {
        let (used, wall) = (result.usage.cpu_ms, result.usage.wall_ms);
        // A program that did not run until its time was up was held to nothing.
        killed(result, KillReason::WallClockExceeded)?;
        if used < wall / 20 {
            return Err(format!("an endless loop used only {used} ms of CPU time in {wall} ms: it was not running"));
        }
        // Held to a fifth; what the sandbox used before its limits came into force counts as well.
        if used.saturating_mul(2) > wall {
            return Err(format!("0.2 cores were allowed, and {used} ms of CPU time used in {wall} ms"));
        }
        Ok(format!("held to 0.2 cores: {used} ms of CPU time in {wall} ms"))
    },
};

const WALL_CLOCK: Claim = Claim {
    name: "wall clock",
    mechanism: |enforcement| &enforcement.wall_clock,
    judge: |result| killed(result, KillReason::WallClockExceeded),
};

fn killed(result: &SessionResult, reason: KillReason) -> Result<String, String> {
    if result.kill_reason == Some(reason) {
        return Ok(format!("stopped after {} ms: {}", result.usage.wall_ms, reason.as_str()));
    }
    let how =
        result.kill_reason.map_or_else(|| format!("{:?}", result.outcome).to_lowercase(), |why| why.as_str().into());
    Err(format!("expected {}, and it ended otherwise: {how}", reason.as_str()))
}

/// A word of what the looking program reported.
fn text(result: &SessionResult, key: &str) -> Result<String, String> {
    let found = result.value().and_then(|value| value.get(key)?.as_str().map(ToOwned::to_owned));
    found.ok_or_else(|| match &result.fault {
        Some(fault) => format!("it did not run: {}", fault.detail),
        None => format!("it reported no {key}; it said: {}", result.stderr_tail.lines().last().unwrap_or("nothing")),
    })
}

/// Starts a server on the real backend and tries everything on it.
pub(super) async fn run() -> Vec<Finding> {
    let began = Instant::now();
    let embedded =
        match Embedded::start(EmbeddedOptions { backend: Some("gvisor".into()), ..EmbeddedOptions::default() }).await {
            Ok(embedded) => embedded,
            Err(error) => return vec![unbootable(&error)],
        };
    let mut findings = vec![Finding::ok(
        Group::Gvisor,
        "boot",
        format!("a server started and a trial sandbox booted, in {} ms", began.elapsed().as_millis()),
    )];
    match try_all(&embedded.client(), embedded.data()).await {
        Ok(mut tried) => findings.append(&mut tried),
        Err(error) => findings.push(Finding::missing(Group::Enforcement, "trials", format!("{error:#}"), BROKEN)),
    }
    if let Err(error) = embedded.shutdown().await {
        findings.push(Finding::missing(Group::Enforcement, "shutdown", format!("{error:#}"), BROKEN));
    }
    findings
}

fn unbootable(error: &anyhow::Error) -> Finding {
    match error.downcast_ref::<NoBackend>() {
        Some(NoBackend::Gvisor(why)) => Finding::missing(Group::Gvisor, "boot", chain(why), why.fix()),
        Some(NoBackend::Auto { .. } | NoBackend::Profile { .. }) | None => {
            Finding::missing(Group::Gvisor, "boot", format!("no server starts: {error:#}"), "what it says there")
        }
    }
}

async fn try_all(client: &Client, data: &Path) -> anyhow::Result<Vec<Finding>> {
    let backend = client.backends().await?.items.into_iter().next().context("the server has a backend")?;
    let mut findings = Vec::new();
    let mut sandboxes = Vec::new();
    // Whoever connects to it came out of a sandbox: nobody else knows the port.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a listener to reach for")?;
    listener.set_nonblocking(true).context("a listener to reach for")?;
    let env = BTreeMap::from([("HOST_PORT".to_owned(), listener.local_addr()?.port().to_string())]);
    for trial in trials() {
        let request = CreateSession {
            code: Some(trial.code.to_owned()),
            limits: trial.limits,
            env: env.clone(),
            ..CreateSession::default()
        };
        let session = client.create(&request).await?;
        let result = client.result(session.id, PATIENCE).await?;
        for claim in trial.claims {
            let mechanism = (claim.mechanism)(&backend.enforcement);
            let finding = match (claim.judge)(&result) {
                Ok(detail) => Finding::ok(Group::Enforcement, claim.name, detail),
                Err(detail) => Finding::missing(Group::Enforcement, claim.name, detail, BROKEN),
            };
            findings.push(finding.by(mechanism));
        }
        sandboxes.extend(torn_down(client, session.id).await?);
    }
    if listener.accept().is_ok() {
        let detail = "a workload reached a port of this host";
        findings.push(Finding::missing(Group::Enforcement, "egress", detail, BROKEN));
    }
    let left = residue::search(&sandboxes, data);
    findings.push(if sandboxes.is_empty() {
        Finding::missing(Group::Enforcement, "residue", "no sandbox was seen, so none was looked for", BROKEN)
    } else if left.is_empty() {
        Finding::ok(Group::Enforcement, "residue", format!("nothing is left of {} sandboxes", sandboxes.len()))
    } else {
        Finding::missing(Group::Enforcement, "residue", left.join("; "), BROKEN)
    });
    Ok(findings)
}

/// Waits until a session's sandbox is gone, and gives its name.
async fn torn_down(client: &Client, id: wire::SessionId) -> anyhow::Result<Vec<String>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let events = client.audit(id, None).await?.items;
        if events.iter().any(|event| event.kind == AuditType::SessionTornDown) {
            let provisioned = events.iter().filter(|event| event.kind == AuditType::SandboxProvisioned);
            let name =
                |event: &wire::AuditEvent| event.data.get("sandbox").and_then(Value::as_str).map(ToOwned::to_owned);
            return Ok(provisioned.filter_map(name).collect());
        }
        anyhow::ensure!(Instant::now() < deadline, "the sandbox of {id} was not removed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(json: &Value) -> SessionResult {
        let whole = serde_json::json!({
            "sessionId": "ses_019a0000-0000-7000-8000-000000000000", "outcome": "succeeded", "exitCode": 0,
            "result": json, "stdoutTail": "", "stdoutTruncated": false, "stderrTail": "", "stderrTruncated": false,
            "artifacts": [], "denials": [],
            "usage": {"cpuMs": 100, "memoryPeakBytes": 1, "wallMs": 1000, "egressBytes": 0},
        });
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn a_workload_that_got_out_fails_the_claim() {
        let sound = serde_json::json!({"tried": "7", "reached": ""});
        assert!((EGRESS.judge)(&result(&sound)).is_ok());
        let out = serde_json::json!({"tried": "7", "reached": "tcp 169.254.169.254:80"});
        assert!((EGRESS.judge)(&result(&out)).unwrap_err().contains("169.254"));
        assert!((EGRESS.judge)(&result(&Value::Null)).is_err(), "saying nothing proves nothing");
    }

    #[test]
    fn a_workload_with_rights_fails_the_claim() {
        let report = |uid: &str, capabilities: &str, written: &str| {
            let json = serde_json::json!({"uid": uid, "capabilities": capabilities, "written": written});
            (IDENTITY.judge)(&result(&json))
        };
        assert!(report("65534", "0000000000000000", "").is_ok());
        assert!(report("0", "0000000000000000", "").is_err());
        assert!(report("65534", "0000000000200000", "").is_err());
        assert!(report("65534", "0000000000000000", "/etc").is_err());
    }

    #[test]
    fn the_hosts_own_kernel_fails_the_claim() {
        let host = rustix::system::uname().release().to_string_lossy().into_owned();
        assert!((KERNEL.judge)(&result(&serde_json::json!({"release": host}))).is_err());
        assert!((KERNEL.judge)(&result(&serde_json::json!({"release": "4.4.0"}))).is_ok());
    }

    #[test]
    fn a_limit_holds_only_if_the_session_ended_for_that_reason() {
        let mut ended = result(&Value::Null);
        assert!(killed(&ended, KillReason::MemoryExceeded).is_err());
        ended.kill_reason = Some(KillReason::PidsExceeded);
        assert!(killed(&ended, KillReason::MemoryExceeded).unwrap_err().contains("pids_exceeded"));
        assert!(killed(&ended, KillReason::PidsExceeded).is_ok());
        assert!((CPU_RATE.judge)(&ended).is_err(), "it ended for another reason");
        ended.kill_reason = Some(KillReason::WallClockExceeded);
        for (cpu_ms, held) in [(200, true), (900, false), (0, false)] {
            ended.usage.cpu_ms = cpu_ms;
            assert_eq!((CPU_RATE.judge)(&ended).is_ok(), held, "{cpu_ms} ms of 1000");
        }
    }
}
