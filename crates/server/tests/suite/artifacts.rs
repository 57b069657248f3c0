//! Files that are collected from real sandboxes when their program has ended, and served when they are gone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wire::{CreateSession, KillReason, Outcome, SessionId, SessionResult, SkippedBecause};

use crate::server::{Server, backends};

struct Scene {
    server: Server,
    http: reqwest::Client,
}

impl Scene {
    async fn on_gvisor(test: &str) -> Option<Self> {
        if !backends(test).contains(&"gvisor") {
            return None;
        }
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Some(Self { server: Server::start("gvisor", &[]).await, http })
    }

    async fn run(&self, request: Value) -> (SessionId, SessionResult) {
        let request: CreateSession = serde_json::from_value(request).unwrap();
        let client = self.server.client();
        let id = client.create(&request).await.unwrap().id;
        let result = client.result(id, Duration::from_mins(2)).await.unwrap();
        (id, result)
    }

    async fn content(&self, id: SessionId, path: &str) -> Vec<u8> {
        let url = format!("{}/v1/sessions/{id}/artifacts/{path}", self.server.url());
        let response = self.http.get(url).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.bytes().await.unwrap().to_vec()
    }
}

fn paths(result: &SessionResult) -> Vec<&str> {
    result.artifacts.iter().map(|artifact| artifact.path.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_programs_left_on_gvisor_is_kept_however_they_ended() {
    let Some(scene) = Scene::on_gvisor("artifacts::kept").await else { return };
    let leave = "import os\nos.makedirs('out/deep')\nopen('out/a.txt', 'w').write('left')\nopen('out/deep/b', 'wb').write(bytes(range(256)) * 8192)\n";
    let leave_js = "const fs = require('fs'); fs.mkdirSync('out/deep', {recursive: true}); fs.writeFileSync('out/a.txt', 'left'); fs.writeFileSync('out/deep/b', Buffer.from(Array.from({length: 256}, (_, n) => n)).toString('latin1').repeat(8192), 'latin1')";
    for (language, code, outcome, reason) in [
        ("python", format!("{leave}raise SystemExit(3)"), Outcome::Failed, None),
        ("python", format!("{leave}while True: pass"), Outcome::Killed, Some(KillReason::WallClockExceeded)),
        ("python", format!("{leave}while True: print('x' * 10000)"), Outcome::Killed, Some(KillReason::OutputExceeded)),
        (
            "python",
            format!(
                "{leave}\nimport threading, time\nfor _ in range(100): threading.Thread(target=time.sleep, args=(60,)).start()"
            ),
            Outcome::Killed,
            Some(KillReason::PidsExceeded),
        ),
        (
            "python",
            format!("{leave}held = []\nwhile True: held.append(b'x' * (4 << 20))"),
            Outcome::Killed,
            Some(KillReason::MemoryExceeded),
        ),
        (
            "node",
            format!("{leave_js}; const held = []; for (;;) held.push(Buffer.alloc(4 << 20, 1))"),
            Outcome::Killed,
            Some(KillReason::MemoryExceeded),
        ),
        ("python", format!("{leave}while True: hash(0)"), Outcome::Killed, Some(KillReason::CpuExceeded)),
        (
            "python",
            format!("{leave}while True: open('full', 'ab').write(bytes(1 << 20))"),
            Outcome::Killed,
            Some(KillReason::DiskExceeded),
        ),
        ("node", leave_js.to_owned(), Outcome::Succeeded, None),
    ] {
        let cpu = if reason == Some(KillReason::CpuExceeded) { 500 } else { 60_000 };
        let limits = json!({"wallClockMs": 5_000, "cpuTimeMs": cpu, "diskBytes": 64 << 20, "pids": 64, "memoryBytes": 128 << 20});
        let request = json!({"code": code, "language": language, "limits": limits, "artifacts": ["out/**"]});
        let (mut id, mut result) = scene.run(request.clone()).await;
        // The reserve is enough for nearly every program that does nothing but fill memory (ADR 9). One in sixty takes its
        // sandbox along, and that is told.
        for _ in 0..2 {
            if reason != Some(KillReason::MemoryExceeded) || !result.artifacts.is_empty() {
                break;
            }
            let skipped: Vec<_> = result.artifacts_skipped.iter().map(|skipped| skipped.because).collect();
            assert_eq!(skipped, [SkippedBecause::SandboxGone], "{result:?}");
            (id, result) = scene.run(request.clone()).await;
        }
        assert_eq!((result.outcome, result.kill_reason), (outcome, reason), "{result:?}");
        assert_eq!(paths(&result), ["out/a.txt", "out/deep/b"], "{result:?}");
        assert_eq!(result.artifacts_skipped, []);
        assert_eq!(scene.content(id, "out/a.txt").await, b"left");
        let expected: Vec<u8> = (0..=255).collect();
        assert_eq!(scene.content(id, "out/deep/b").await, expected.repeat(8192));
    }
    let client = scene.server.client();
    let code = format!("{leave}print('ready', flush=True)\nimport time\ntime.sleep(600)");
    let request: CreateSession = serde_json::from_value(json!({"code": code, "artifacts": ["out/a*"]})).unwrap();
    let id = client.create(&request).await.unwrap().id;
    let deadline = Instant::now() + Duration::from_mins(1);
    let url = format!("{}/v1/sessions/{id}/files/out/deep/b", scene.server.url());
    while scene.http.get(&url).send().await.unwrap().status() != 200 {
        assert!(Instant::now() < deadline, "it does not run");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client.delete(id).await.unwrap();
    let result = client.result(id, Duration::from_mins(1)).await.unwrap();
    assert_eq!((result.outcome, paths(&result)), (Outcome::Cancelled, vec!["out/a.txt"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_files_are_left_out_and_told() {
    let Some(scene) = Scene::on_gvisor("artifacts::hostile").await else { return };
    let code = r"
import os
os.mkfifo('pipe'); os.symlink('/etc/passwd', 'shadow'); os.symlink('/etc', 'etc'); os.symlink('..', 'up')
open('line\nend', 'w').write('x'); open(b'not-\xff-utf8', 'w').write('x')
open('sparse', 'wb').truncate(10 << 30)
open('hidden', 'w').write('x'); os.chmod('hidden', 0)
os.mkdir('closed'); open('closed/x', 'w').close(); os.chmod('closed', 0)
os.mkdir('deep'); os.chdir('deep')
for _ in range(60): os.mkdir('d'); os.chdir('d')
open('bottom', 'w').close()
os.chdir('/workspace'); open('honest', 'w').write('honest'); os.link('honest', 'hard')
open('/tmp/outside', 'w').write('x')
";
    let (id, result) = scene.run(json!({"code": code, "artifacts": ["**"], "limits": {"diskBytes": 64 << 20}})).await;
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    let kept: Vec<_> = paths(&result).into_iter().filter(|path| *path != "main.py").collect();
    assert_eq!(kept, ["hard", "honest"], "{result:?}");
    assert_eq!(scene.content(id, "hard").await, b"honest");
    let skipped: Vec<_> =
        result.artifacts_skipped.iter().map(|skipped| (skipped.path.as_str(), skipped.because)).collect();
    for expected in [
        ("etc", SkippedBecause::NotAFile),
        ("hidden", SkippedBecause::Unreadable),
        ("line\u{fffd}end", SkippedBecause::Name),
        ("not-\u{fffd}-utf8", SkippedBecause::Name),
        ("pipe", SkippedBecause::NotAFile),
        ("shadow", SkippedBecause::NotAFile),
        ("sparse", SkippedBecause::TooLarge),
        ("up", SkippedBecause::NotAFile),
    ] {
        assert!(skipped.contains(&expected), "{expected:?} in {skipped:?}");
    }
    assert!(!skipped.iter().any(|(path, _)| path.contains("bottom") || path.starts_with('/')), "{skipped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_files_are_kept_and_no_more() {
    let Some(scene) = Scene::on_gvisor("artifacts::many").await else { return };
    let code = "for n in range(1500): open(f'f{n}', 'w').write(str(n))";
    let (id, result) = scene.run(json!({"code": code, "artifacts": ["f*"]})).await;
    assert_eq!(result.artifacts.len(), 1000);
    assert_eq!(result.artifacts_skipped.last().map(|skipped| skipped.because), Some(SkippedBecause::TooMany));
    let last = result.artifacts.last().unwrap();
    assert_eq!(scene.content(id, &last.path).await, last.path.as_bytes()[1..]);
    let url = format!("{}/v1/sessions/{id}/artifacts", scene.server.url());
    let page: wire::ArtifactPage = scene.http.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(page.items, result.artifacts);
}
