//! The demo's programs, and what must become of each.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
};

use serde_json::Value;
use wire::{EgressRule, EgressTarget, GitSource, Language, Limits, SessionResult};

use crate::demo::{forge::Forge, upstream::Upstream};

const MIB: u64 = 1024 * 1024;

/// One program and its expectation.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) story: &'static str,
    pub(super) language: Language,
    pub(super) code: &'static str,
    pub(super) limits: Limits,
    pub(super) env: BTreeMap<String, String>,
    /// What it may reach; nothing, and no gateway either, when none.
    pub(super) allow: Option<Vec<EgressRule>>,
    /// The repository that it is in, instead of `code`.
    pub(super) source: Option<GitSource>,
    /// Bindings that it may use.
    pub(super) bind: Vec<String>,
    pub(super) expected: String,
    /// Puts the program's result into words that can be compared.
    pub(super) judge: Option<fn(&SessionResult, &Stage) -> String>,
}

/// What the programs play on.
pub(super) struct Stage {
    pub(super) canary: Canary,
    pub(super) upstream: Upstream,
    /// A git server, where there is git.
    pub(super) forge: Option<Forge>,
    /// Whether programs really run.
    pub(super) executes: bool,
}

/// The binding that leads to the demo's own service.
pub(super) const BINDING: &str = "demo-api";
/// The binding that leads to the demo's own repositories.
pub(super) const GIT_BINDING: &str = "demo-git";
/// The repository.
pub(super) const REPOSITORY: &str = "/private/demo.git";

/// What only the host knows and has: if a program comes back with any of it, or arrives there, the sandbox leaks.
pub(super) struct Canary {
    /// Whoever connects to it came out of a sandbox: nobody else knows the port.
    listener: TcpListener,
    file: tempfile::NamedTempFile,
    secrets: Vec<String>,
}

impl Canary {
    /// Writes a secret into a file of the host, and collects what else tells this host from others.
    pub(super) fn plant() -> anyhow::Result<Self> {
        let file = tempfile::Builder::new().prefix("enclave-canary-").tempfile()?;
        let secret =
            file.path().file_name().map(|name| format!("canary {}", name.to_string_lossy())).unwrap_or_default();
        fs::write(file.path(), &secret)?;
        let known = ["/proc/sys/kernel/random/boot_id", "/etc/machine-id", "/proc/version"];
        let facts = known.iter().filter_map(|path| fs::read_to_string(path).ok());
        // A hash of the superuser's password, where there is one.
        let shadow = fs::read_to_string("/etc/shadow").unwrap_or_default();
        let hashes = shadow.lines().filter_map(|line| line.split(':').nth(1)).map(ToOwned::to_owned);
        let secrets = facts
            .chain(hashes)
            .map(|fact| fact.trim().to_owned())
            .filter(|fact| fact.len() > 12)
            .chain([secret])
            .collect();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, file, secrets })
    }

    fn port(&self) -> String {
        self.listener.local_addr().map_or_else(|_| String::new(), |address| address.port().to_string())
    }

    fn was_reached(&self) -> bool {
        self.listener.accept().is_ok()
    }

    fn paths(&self) -> String {
        let path = self.file.path().display();
        let exe = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
        format!("{path} /proc/1/root{path} /proc/self/root/../..{path} {}", exe.display())
    }

    /// How many of the host's facts the text holds.
    fn leaks_in(&self, text: &str) -> usize {
        self.secrets.iter().filter(|secret| text.contains(secret.as_str())).count()
    }
}

/// All of them, in the order of the demo.
pub(super) fn all(stage: &Stage) -> Vec<Case> {
    let Stage { canary, upstream, forge, .. } = stage;
    let python = |name, story, code, limits, expected: &str| Case {
        name,
        story,
        language: Language::Python,
        code,
        limits,
        env: BTreeMap::new(),
        allow: None,
        source: None,
        bind: Vec::new(),
        expected: expected.to_owned(),
        judge: None,
    };
    let node = |name, story, code, limits, expected: &str| Case {
        language: Language::Node,
        ..python(name, story, code, limits, expected)
    };
    let limits = Limits { wall_clock_ms: Some(30_000), ..Limits::default() };
    let mut cases = vec![
        Case {
            judge: Some(reached),
            env: BTreeMap::from([("HOST_PORT".to_owned(), canary.port())]),
            ..python(
                "data thief",
                "TCP, UDP, DNS and HTTP to the outside, to the cloud's metadata address and to this host",
                include_str!("programs/data_thief.py"),
                limits,
                "succeeded; 9 ways tried, 0 got out",
            )
        },
        Case {
            judge: Some(metadata),
            allow: Some(vec![EgressRule::Cidr("0.0.0.0/0".into()), EgressRule::Cidr("::/0".into())]),
            ..python(
                "metadata thief",
                "may reach every address there is, and asks for the cloud's credentials in eight spellings",
                include_str!("programs/metadata.py"),
                limits,
                "succeeded; 8 spellings tried, 0 got out, told as metadata",
            )
        },
        Case {
            judge: Some(listed),
            allow: Some(vec![EgressRule::Target(EgressTarget {
                cidr: Some("127.0.0.1/32".into()),
                domain: None,
                ports: vec![upstream.port],
            })]),
            env: BTreeMap::from([("API_PORT".to_owned(), upstream.port.to_string())]),
            ..python(
                "allowlist",
                "asks for the one destination that its list has, and for three that it has not",
                include_str!("programs/allowlist.py"),
                limits,
                "succeeded; 1 reached, 3 refused and told",
            )
        },
        Case {
            judge: Some(bound),
            bind: vec![BINDING.to_owned()],
            ..python(
                "bound service",
                "uses a service whose token it is not given, and hunts for the token",
                include_str!("programs/bound.py"),
                limits,
                "succeeded; 3 calls with the token, 0 copies of it seen",
            )
        },
        python(
            "fork bomb",
            "doubles itself until something stops it",
            include_str!("programs/fork_bomb.py"),
            Limits { pids: Some(64), ..limits },
            "killed: pids_exceeded",
        ),
        python(
            "memory balloon",
            "takes memory until something stops it",
            include_str!("programs/memory_balloon.py"),
            Limits { memory_bytes: Some(128 * MIB), ..limits },
            "killed: memory_exceeded",
        ),
        python(
            "disk filler",
            "fills /workspace and /tmp until something stops it",
            include_str!("programs/disk_filler.py"),
            Limits { disk_bytes: Some(64 * MIB), ..limits },
            "killed: disk_exceeded",
        ),
        python(
            "endless loop",
            "never ends, and is deaf to signals",
            include_str!("programs/endless_loop.py"),
            Limits { wall_clock_ms: Some(2_000), ..limits },
            "killed: wall_clock_exceeded",
        ),
        node(
            "CPU burner",
            "burns CPU time in four threads (Node)",
            include_str!("programs/cpu_burner.js"),
            Limits { cpu_time_ms: Some(1_500), ..limits },
            "killed: cpu_exceeded",
        ),
        python(
            "output flood",
            "writes one line without an end",
            include_str!("programs/output_flood.py"),
            Limits { output_bytes: Some(MIB), ..limits },
            "killed: output_exceeded",
        ),
        Case {
            judge: Some(host_facts),
            env: BTreeMap::from([("CANARY_PATHS".to_owned(), canary.paths())]),
            ..python(
                "host reader",
                "tries thirty paths of the host, and the tricks of /proc",
                include_str!("programs/host_reader.py"),
                limits,
                "succeeded; 0 facts of the host seen",
            )
        },
        Case {
            judge: Some(given),
            ..python(
                "honest Python",
                "computes, and hands back a structured result",
                include_str!("programs/honest.py"),
                limits,
                r#"succeeded; {"largest":97,"primes":25,"sum":1060}"#,
            )
        },
        Case {
            judge: Some(given),
            ..node(
                "honest Node",
                "the same in Node",
                include_str!("programs/honest.js"),
                limits,
                r#"succeeded; {"counts":{"be":2,"or":1,"to":1},"words":4}"#,
            )
        },
    ];
    if let Some(forge) = forge {
        cases.push(Case {
            judge: Some(cloned),
            source: Some(GitSource {
                repo: forge.url(REPOSITORY),
                reference: "main".into(),
                entrypoint: "main.py".into(),
                credential: Some(GIT_BINDING.into()),
                ..GitSource::default()
            }),
            ..python(
                "private repository",
                "is cloned with a token that no sandbox is given, and looks for it and for .git",
                "",
                limits,
                "succeeded; cloned with the token, 0 traces of it",
            )
        });
    }
    cases
}

fn reached(result: &SessionResult, stage: &Stage) -> String {
    account(result.value().as_ref(), &stage.canary)
}

fn account(result: Option<&Value>, canary: &Canary) -> String {
    let field = |name: &str| result.and_then(|result| result.get(name));
    let attempts = field("attempts").and_then(Value::as_u64);
    let out = field("reached").and_then(Value::as_array).map(Vec::len);
    match (attempts, out) {
        (Some(_), Some(_)) if canary.was_reached() => "it reached a port of this host".to_owned(),
        (Some(attempts), Some(out)) => format!("{attempts} ways tried, {out} got out"),
        (None, _) | (_, None) => "no account of it".to_owned(),
    }
}

fn metadata(result: &SessionResult, _: &Stage) -> String {
    let value = result.value().unwrap_or_default();
    let told = result.denials.iter().any(|denial| denial.reason.contains("metadata service"));
    let words = if told { "told as metadata" } else { "not told" };
    match (value["spellings"].as_u64(), value["reached"].as_array().map(Vec::len)) {
        (Some(spellings), Some(out)) => format!("{spellings} spellings tried, {out} got out, {words}"),
        (None, _) | (_, None) => "no account of it".to_owned(),
    }
}

fn listed(result: &SessionResult, _: &Stage) -> String {
    let value = result.value().unwrap_or_default();
    match (value["reached"].as_array().map(Vec::len), value["refused"].as_u64()) {
        (Some(reached), Some(refused)) if refused == result.denials.len() as u64 => {
            format!("{reached} reached, {refused} refused and told")
        }
        (Some(reached), Some(refused)) => {
            format!("{reached} reached, {refused} refused, {} told", result.denials.len())
        }
        (None, _) | (_, None) => "no account of it".to_owned(),
    }
}

fn bound(result: &SessionResult, stage: &Stage) -> String {
    let value = result.value().unwrap_or_default();
    let (Some(calls), Some(seen)) = (value["calls"].as_u64(), value["seen"].as_str()) else {
        return "no account of it".to_owned();
    };
    // The echo was answered as well: it is the gateway that cut it.
    if stage.executes && stage.upstream.granted() != calls + 1 {
        return format!("{calls} calls told, {} with the token", stage.upstream.granted());
    }
    let everything = [seen, &result.stdout_tail, &result.stderr_tail].join("\n");
    format!("{calls} calls with the token, {} copies of it seen", everything.matches(&stage.upstream.token).count())
}

fn cloned(result: &SessionResult, stage: &Stage) -> String {
    let presented = stage.forge.as_ref().map_or(0, |forge| forge.presented().len());
    match result.value().unwrap_or_default()["traces"].as_u64() {
        Some(traces) if presented > 0 => format!("cloned with the token, {traces} traces of it"),
        Some(_) => "cloned without the token".to_owned(),
        None => "no account of it".to_owned(),
    }
}

fn host_facts(result: &SessionResult, stage: &Stage) -> String {
    facts(result.value().as_ref(), &stage.canary)
}

fn facts(result: Option<&Value>, canary: &Canary) -> String {
    let Some(read) = result.and_then(|result| result.get("read")).and_then(Value::as_object) else {
        return "no account of it".to_owned();
    };
    // Seen as the program saw it, not as JSON would escape it.
    let seen: Vec<&str> = read.values().filter_map(Value::as_str).collect();
    format!("{} facts of the host seen", canary.leaks_in(&seen.join("\n")))
}

fn given(result: &SessionResult, _: &Stage) -> String {
    // Keys in a fixed order, whatever serde_json's map keeps.
    fn sorted(value: &Value) -> Value {
        match value.as_object() {
            Some(fields) => {
                let ordered: BTreeMap<_, _> = fields.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
                ordered.into_iter().collect()
            }
            None => value.clone(),
        }
    }
    result.value().map_or_else(|| "no result".to_owned(), |value| sorted(&value).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_data_thief_is_caught_by_what_it_reached_whatever_it_says() {
        let canary = Canary::plant().unwrap();
        let honest = json!({"attempts": 9, "reached": []});
        assert_eq!(account(Some(&honest), &canary), "9 ways tried, 0 got out");
        let _out = std::net::TcpStream::connect(("127.0.0.1", canary.port().parse().unwrap())).unwrap();
        assert_eq!(account(Some(&honest), &canary), "it reached a port of this host");
        assert_eq!(account(None, &canary), "no account of it");
    }

    #[test]
    fn the_host_reader_is_caught_when_it_comes_back_with_the_canary() {
        let canary = Canary::plant().unwrap();
        let secret = fs::read_to_string(canary.file.path()).unwrap();
        assert_eq!(facts(Some(&json!({"read": {"/x": secret}})), &canary), "1 facts of the host seen");
        assert_eq!(facts(Some(&json!({"read": {"/x": "nothing"}})), &canary), "0 facts of the host seen");
        assert_eq!(facts(None, &canary), "no account of it");
    }
}
