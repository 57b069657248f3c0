//! What a session may reach, with ordinary clients, and a service whose token stays outside.

use std::{
    fs,
    time::{Duration, Instant},
};

use client::Client;
use serde_json::{Value, json};
use wire::{
    AuditType, BindingSecret, CreateFleet, CreateSession, FaultCode, FleetEndReason, FleetMembers, FleetPhase,
    FleetTemplate, MemberPhase, Outcome, SessionId, SessionResult,
};

use crate::{
    fleets, residue,
    server::{Server, backends},
    world::World,
};

const TOKEN: &str = "canary-token-4f1d9c2ab7";
const ROTATED: &str = "canary-rotated-90be77d3c1";

pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) server: Server,
    pub(crate) client: Client,
}

impl Scene {
    async fn start(backend: &str) -> Self {
        let world = World::start().await;
        let arguments = world.arguments();
        let server = Server::start(backend, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let client = server.client();
        Self { world, server, client }
    }

    /// On gVisor, or not at all.
    pub(crate) async fn on_gvisor(test: &str) -> Option<Self> {
        if backends(test).contains(&"gvisor") { Some(Self::start("gvisor").await) } else { None }
    }

    /// Makes the binding `api` to the world's HTTP server.
    pub(crate) async fn bind(&self) -> wire::Binding {
        let request = json!({
            "name": "api", "kind": {"type": "bearer"}, "secret": {"value": TOKEN},
            "upstream": {"url": format!("http://{}", self.world.http)},
        });
        self.client.create_binding(&serde_json::from_value(request).unwrap()).await.unwrap()
    }

    pub(crate) async fn create(&self, request: Value) -> SessionId {
        let text = self.world.fill(&request.to_string());
        let request: CreateSession = serde_json::from_str(&text).unwrap();
        self.client.create(&request).await.unwrap().id
    }

    pub(crate) async fn run(&self, request: Value) -> SessionResult {
        let id = self.create(request).await;
        self.client.result(id, Duration::from_mins(2)).await.unwrap()
    }

    fn presented(&self) -> Vec<String> {
        let header = |seen: &crate::world::Seen| {
            seen.headers.iter().find(|(name, _)| name == "authorization").map(|(_, value)| value.clone())
        };
        self.world.requests().iter().filter_map(header).collect()
    }
}

pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(2);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The gateway processes of this server: its children that are its own program under another name.
fn gateways(server: &Server) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let of_ours = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).map(str::trim).map(ToOwned::to_owned);
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        parent == Some(server.pid().to_string()) && words.split(|byte| *byte == 0).any(|word| word == b"gateway")
    };
    pids.filter(of_ours).collect()
}

const CLIENTS: &str = r#"
import json, os, socket, subprocess, urllib.request
def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    return (done.stdout + done.stderr).strip().splitlines()[-1:]
told = {}
url, tls = "http://allowed.test:{HTTP_PORT}", "https://allowed.test:{HTTPS_PORT}"
told["urllib"] = urllib.request.urlopen(url + "/urllib", timeout=20).read().decode().strip()
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
told["captured"] = direct.open(url + "/captured", timeout=20).read().decode().strip()
told["curl"] = run("curl", "-sS", "--cacert", "ca.pem", tls + "/curl")
told["curl captured"] = run("curl", "-sS", "--noproxy", "*", "--cacert", "ca.pem", tls + "/curl-captured")
told["curl socks"] = run("curl", "-sS", "--proxy", "socks5h://127.0.0.53:1080", url + "/socks")
told["node"] = run("node", "-e", f"fetch('{url}/node').then(r => r.text()).then(t => console.log(t.trim()))")
told["refused"] = run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://other.test:{HTTP_PORT}/")
enclave.result(told)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_clients_reach_what_the_list_has_and_nothing_else() {
    let Some(scene) = Scene::on_gvisor("ordinary_clients_reach_what_the_list_has_and_nothing_else").await else {
        return;
    };
    let result = scene
        .run(json!({
            "code": CLIENTS,
            "files": [{"path": "ca.pem", "content": scene.world.ca_pem}],
            "egress": {"mode": "allowlist", "allow": [{"domain": "allowed.test"}]},
        }))
        .await;
    let told = result.value().unwrap_or_else(|| panic!("{result:#?}"));
    let hello = |path: &str| format!("hello from the world: GET /{path}");
    for (client, path) in [("urllib", "urllib"), ("captured", "captured")] {
        assert_eq!(told[client], hello(path), "{told:#}");
    }
    for (client, path) in
        [("curl", "curl"), ("curl captured", "curl-captured"), ("curl socks", "socks"), ("node", "node")]
    {
        assert_eq!(told[client], json!([hello(path)]), "{client}: {told:#}");
    }
    assert_eq!(told["refused"], json!(["403"]), "{told:#}");
    assert!(result.usage.egress_bytes > 0, "{:?}", result.usage);
    let refused: Vec<&str> = result.denials.iter().map(|denial| denial.attempted.as_str()).collect();
    assert!(refused.iter().any(|attempted| attempted.contains("http://other.test")), "{refused:?}");
    scene.server.audit_verifies().unwrap();
}

/// No name and no proxy: sockets of the program's own.
const IPV6: &str = r#"
import socket
def ask(host, port):
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as s:
        s.settimeout(20)
        s.connect((host, port))
        s.sendall(b"GET /six HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := s.recv(4096):
            answer += data
    return answer.decode()
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
    s.settimeout(20)
    s.connect(("2001:db8::9", 4433))
    s.send(b"x")
    try:
        sent = s.recv(10).decode()
    except OSError as error:
        sent = type(error).__name__
enclave.result({"allowed": ask("{WORLD6}", {HTTP6_PORT}), "refused": ask("2001:db8::1", 80), "udp": sent})
"#;

#[tokio::test(flavor = "multi_thread")]
async fn raw_connections_over_ipv6_are_caught_decided_and_told() {
    let test = "raw_connections_over_ipv6_are_caught_decided_and_told";
    let Some(scene) = Scene::on_gvisor(test).await else { return };
    let Some(http6) = scene.world.http6 else {
        return println!("SKIP {test}: this host has no address of IPv6");
    };
    let code = IPV6.replace("{WORLD6}", &http6.ip().to_string()).replace("{HTTP6_PORT}", &http6.port().to_string());
    let egress = json!({"mode": "allowlist", "allow": [format!("{}/128", http6.ip())]});
    let id = scene.create(json!({"code": code, "egress": egress})).await;
    let result = scene.client.result(id, Duration::from_mins(2)).await.unwrap();
    let told = result.value().unwrap_or_else(|| panic!("{result:#?}"));
    assert!(told["allowed"].as_str().unwrap().ends_with("hello from the world: GET /six\n"), "{told:#}");
    assert!(told["refused"].as_str().unwrap().starts_with("HTTP/1.1 403 egress denied"), "{told:#}");
    assert_eq!(told["udp"], "ConnectionRefusedError", "{told:#}");
    let refused: Vec<&str> = result.denials.iter().map(|denial| denial.attempted.as_str()).collect();
    for attempted in ["connect tcp [2001:db8::1]:80", "send udp over IPv6"] {
        assert!(refused.contains(&attempted), "{refused:?}");
    }
    let audit = scene.client.audit(id, None).await.unwrap();
    let allowed = audit.items.iter().find(|event| event.kind == AuditType::EgressAllowed).unwrap();
    assert_eq!(allowed.data["address"], http6.ip().to_string(), "{allowed:#?}");
}

const ROTATION: &str = r#"
import os, time, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
base = os.environ["ENCLAVE_SVC_API"]
assert enclave.binding("api") == base
calls = 0
while opener.open(base + "/flag", timeout=20).read() != b"stop":
    calls += 1
    time.sleep(0.05)
enclave.result(calls)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_is_used_by_the_next_call_of_a_running_session() {
    let test = "a_rotated_secret_is_used_by_the_next_call_of_a_running_session";
    let Some(scene) = Scene::on_gvisor(test).await else { return };
    let binding = scene.bind().await;
    let id = scene.create(json!({"code": ROTATION, "serviceBindings": ["api"]})).await;
    until("the first call", || !scene.presented().is_empty()).await;
    assert!(scene.presented().iter().all(|value| *value == format!("Bearer {TOKEN}")));
    let secret = BindingSecret { value: ROTATED.into(), ..BindingSecret::default() };
    scene.client.rotate_binding(binding.id, &secret).await.unwrap();
    until("a call with the new secret", || scene.presented().contains(&format!("Bearer {ROTATED}"))).await;
    *scene.world.flag.lock().unwrap() = "stop".into();
    let result = scene.client.result(id, Duration::from_mins(1)).await.unwrap();
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:#?}");
    // Once it was used, the old one never is again.
    let presented = scene.presented();
    let first = presented.iter().position(|value| value.ends_with(ROTATED)).unwrap();
    assert!(presented[first..].iter().all(|value| value.ends_with(ROTATED)));
}

const CALLS: &str = r#"
import http.client, os
from urllib.parse import urlsplit
host = urlsplit(os.environ["ENCLAVE_SVC_API"]).hostname
connection = http.client.HTTPConnection(host, 80, timeout=30)
seen = []
for number in range(1000):
    connection.request("GET", f"/call/{number}")
    answer = connection.getresponse()
    seen.append(answer.read().decode() + str(answer.headers))
# Whatever the service says of what it was sent.
connection.request("GET", "/echo")
try:
    seen.append(connection.getresponse().read().decode("latin-1"))
except (OSError, http.client.HTTPException):
    pass
seen.append(str(dict(os.environ)))
enclave.result({"calls": number + 1, "seen": "".join(sorted(set(seen)))[:500000]})
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_secret_is_nowhere_but_in_the_gateway_after_a_thousand_calls_and_a_crash() {
    let test = "a_bound_secret_is_nowhere_but_in_the_gateway_after_a_thousand_calls_and_a_crash";
    let Some(scene) = Scene::on_gvisor(test).await else { return };
    scene.bind().await;
    let id = scene.create(json!({"code": CALLS, "serviceBindings": ["api"], "limits": {"cpu": 2.0}})).await;
    let result = scene.client.result(id, Duration::from_mins(2)).await.unwrap();
    assert_eq!(result.value().unwrap_or_else(|| panic!("{result:#?}"))["calls"], 1000);
    let presented = scene.presented();
    assert!(presented.len() >= 1000 && presented.iter().all(|value| *value == format!("Bearer {TOKEN}")));
    let audit = scene.client.audit(id, None).await.unwrap();
    assert!(audit.items.iter().any(|event| event.kind == AuditType::BindingInvoked));

    // A second session, whose gateway is made to dump core, and dies.
    *scene.world.flag.lock().unwrap() = "go on".into();
    let second = scene.create(json!({"code": ROTATION, "serviceBindings": ["api"]})).await;
    until("the second session's calls", || scene.presented().len() > presented.len() + 1).await;
    let mut running = Vec::new();
    until("its gateway", || {
        running = gateways(&scene.server);
        !running.is_empty()
    })
    .await;
    for pid in &running {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        for told in [environment, words] {
            assert!(!String::from_utf8_lossy(&told).contains("canary"));
        }
        let abort = std::process::Command::new("kill").args(["-ABRT", &pid.to_string()]).status().unwrap();
        assert!(abort.success());
    }
    let ended = scene.client.result(second, Duration::from_mins(1)).await.unwrap();
    assert_eq!(ended.fault.as_ref().map(|fault| fault.code), Some(FaultCode::GatewayLost), "{ended:#?}");
    until("the end of the gateways", || gateways(&scene.server).is_empty()).await;

    let told = serde_json::to_string(&(&result, &audit, &ended)).unwrap();
    assert!(!told.contains(TOKEN), "the secret is in what is told of its sessions");
    let (read, copies) = residue::copies(scene.server.data.parent().unwrap(), TOKEN);
    assert!(read > 0 && copies.is_empty(), "{copies:?}");
    let status = fs::read(format!("/proc/{}/environ", scene.server.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&status).contains(TOKEN));
    let dumps: Vec<_> = fs::read_dir("/").unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!dumps.iter().any(|name| name.to_string_lossy().starts_with("core")), "{dumps:?}");
    let sandboxes: Vec<String> = Vec::new();
    assert_eq!(residue::search(&sandboxes, &scene.server.data), Vec::<String>::new());
    scene.server.audit_verifies().unwrap();
}

/// Asks as often as it is told, and stays.
const ASKS: &str = r#"
import os, time, urllib.request
for _ in range(enclave.input):
    urllib.request.urlopen(os.environ["ENCLAVE_SVC_API"] + "/asked", timeout=20).read()
time.sleep(600)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_members_of_a_fleet_call_and_carry_counts_against_its_budget() {
    let Some(scene) = Scene::on_gvisor("what_members_of_a_fleet_call_and_carry_counts_against_its_budget").await else {
        return;
    };
    scene.bind().await;
    for (times, budget, reason) in [
        (3, json!({"bindingCalls": 5}), FleetEndReason::BindingBudgetExceeded),
        (10_000, json!({"egressBytes": 20_000}), FleetEndReason::EgressBudgetExceeded),
    ] {
        let template = serde_json::from_value(json!({"code": ASKS, "serviceBindings": ["api"]})).unwrap();
        let inputs = (0..4).map(|_| json!(times).into()).collect();
        let request = CreateFleet {
            name: "asking".into(),
            members: FleetMembers::Template(Box::new(FleetTemplate { template, inputs })),
            max_concurrency: Some(2),
            budget: Some(serde_json::from_value(budget).unwrap()),
            ..CreateFleet::default()
        };
        let made = scene.client.create_fleet(&request).await.unwrap();
        let ending = fleets::finished(&scene.client, made.id);
        let fleet = tokio::time::timeout(Duration::from_mins(2), ending).await.expect("it finishes");
        assert_eq!((fleet.phase, fleet.reason), (FleetPhase::Killed, Some(reason)), "{fleet:#?}");
        if reason == FleetEndReason::BindingBudgetExceeded {
            assert!((5..=6).contains(&fleet.used.binding_calls), "{fleet:#?}");
        } else {
            assert!(fleet.used.egress_bytes >= 20_000, "{fleet:#?}");
        }
        let members = fleets::members(&scene.client, fleet.id).await;
        let phases: Vec<_> = members.iter().map(|member| member.phase).collect();
        let (killed, skipped) = (MemberPhase::Killed, MemberPhase::Skipped);
        assert_eq!(phases, [killed, killed, skipped, skipped], "{members:#?}");
    }
    scene.server.audit_verifies().unwrap();
}
