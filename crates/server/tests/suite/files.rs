//! Files of a session that runs, over HTTP, on real sandboxes: what a workload can do to them, and how large they may be.

use std::time::{Duration, Instant};

use client::LocalFile;
use reqwest::{Body, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use wire::{AuditType, CreateSession, ErrorCode, FilePage, KillReason, Limits, Outcome, Phase, SessionId, StoredFile};

use crate::server::{Server, backends};

const MIB: usize = 1024 * 1024;

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

    /// Starts a program, and waits until it has said that it is ready.
    async fn start(&self, code: &str, limits: Value) -> SessionId {
        let request: CreateSession = serde_json::from_value(json!({"code": code, "limits": limits})).unwrap();
        let id = self.server.client().create(&request).await.unwrap().id;
        let deadline = Instant::now() + Duration::from_mins(1);
        while self.get(id, "ready").await.status() != StatusCode::OK {
            assert!(Instant::now() < deadline, "the program is not ready");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        id
    }

    fn url(&self, id: SessionId, path: &str) -> String {
        format!("{}/v1/sessions/{id}/files/{path}", self.server.url())
    }

    async fn get(&self, id: SessionId, path: &str) -> Response {
        self.http.get(self.url(id, path)).send().await.unwrap()
    }

    async fn put(&self, id: SessionId, path: &str, content: impl Into<Body>) -> Response {
        self.http.put(self.url(id, path)).body(content).send().await.unwrap()
    }

    async fn names(&self, id: SessionId) -> Vec<String> {
        let (mut names, mut next) = (Vec::new(), String::new());
        loop {
            let url = format!("{}/v1/sessions/{id}/files?recursive=true&limit=10000{next}", self.server.url());
            let page: FilePage = self.http.get(url).send().await.unwrap().json().await.unwrap();
            names.extend(page.items.into_iter().map(|entry| entry.path).filter(|path| path != "main.py"));
            match page.next_cursor {
                Some(cursor) => next = format!("&cursor={cursor}"),
                None => return names,
            }
        }
    }

    async fn code(&self, id: SessionId, path: &str) -> String {
        code(self.get(id, path).await).await
    }
}

async fn code(response: Response) -> String {
    let problem: Value = response.json().await.unwrap();
    problem["code"].as_str().unwrap_or_default().to_owned()
}

fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

/// What does not repeat in a way that a mistake with pieces could hide.
fn content(bytes: usize) -> Vec<u8> {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut made = Vec::with_capacity(bytes + 8);
    while made.len() < bytes {
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        made.extend_from_slice(&seed.to_be_bytes());
    }
    made.truncate(bytes);
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_files_are_refused_and_the_session_lives_on() {
    let Some(scene) = Scene::on_gvisor("hostile_files").await else { return };
    let program = r"
import os, threading, time
os.mkfifo('pipe'); os.symlink('/etc/passwd', 'shadow'); os.symlink('/etc', 'etc'); os.mkdir('inner')
os.symlink('../..', 'inner/up'); os.link('main.py', 'hard') if os.path.exists('main.py') else None
for device in ('/dev/null', '/proc/self/environ', '/proc/1/environ'): os.symlink(device, device.replace('/', '_'))
try: os.mknod('device', 0o20600, os.makedev(1, 3)); os.rename('device', 'made-a-device')
except OSError: pass
open('line\nend', 'w').write('x'); open(b'not-\xff-utf8', 'w').write('x')
open('sparse', 'wb').truncate(10 << 30)
open('hidden', 'w').write('x'); os.chmod('hidden', 0)
os.mkdir('closed', 0); open('honest', 'w').write('honest')
def swap():
    while True:
        try:
            open('swapped.new', 'w').write('mine'); os.rename('swapped.new', 'swapped')
            os.symlink('/etc/passwd', 'swapped.new'); os.rename('swapped.new', 'swapped')
        except OSError: pass
def swap_directory():
    while True:
        try:
            os.mkdir('way'); open('way/passwd', 'w').write('mine')
            os.unlink('way/passwd'); os.rmdir('way'); os.symlink('/etc', 'way'); os.unlink('way')
        except OSError: pass
threading.Thread(target=swap, daemon=True).start(); threading.Thread(target=swap_directory, daemon=True).start()
open('ready', 'w').close()
time.sleep(600)
";
    let id = scene.start(program, json!({"wallClockMs": 300_000, "diskBytes": 64 << 20})).await;
    for (path, expected) in [
        ("pipe", "not_a_file"),
        ("shadow", "not_a_file"),
        ("etc/passwd", "not_a_file"),
        ("inner/up/etc/passwd", "not_a_file"),
        ("_dev_null", "not_a_file"),
        ("_proc_self_environ", "not_a_file"),
        ("inner", "not_a_file"),
        ("made-a-device", "not_found"),
        ("sparse", "disk_exceeded"),
        ("hidden", "wrong_state"),
        ("closed/x", "wrong_state"),
        ("absent", "not_found"),
        ("%2e%2e%2fetc%2fpasswd", "invalid_request"),
        ("line%0aend", "invalid_request"),
        ("not-%FF-utf8", "invalid_request"),
    ] {
        assert_eq!(scene.code(id, path).await, expected, "{path}");
    }
    // Whoever swaps a file for a link meanwhile gets the file or a refusal, and never what the link leads to.
    for _ in 0..300 {
        for path in ["swapped", "way/passwd"] {
            let response = scene.get(id, path).await;
            if response.status() == StatusCode::OK {
                // One that was opened in the middle of being written may be shorter than it was.
                if let Ok(text) = response.text().await {
                    assert!("mine".starts_with(&text), "{text}");
                }
            }
        }
    }
    for path in ["pipe", "shadow", "swapped"] {
        assert_eq!(scene.put(id, path, "replaced").await.status(), StatusCode::OK, "{path}");
    }
    assert_eq!(scene.get(id, "pipe").await.text().await.unwrap(), "replaced");
    for path in ["etc/x", "inner/up/x", "inner", "closed/x"] {
        assert!(scene.put(id, path, "x").await.status().is_client_error(), "{path}");
    }
    let url = format!("{}/v1/sessions/{id}/files", scene.server.url());
    for _ in 0..50 {
        let response = scene.http.get(&url).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{}", response.text().await.unwrap());
        let page: FilePage = response.json().await.unwrap();
        let escaped: Vec<_> = page.items.iter().filter(|entry| entry.escaped).map(|entry| &*entry.path).collect();
        assert_eq!(escaped, ["line\\x0aend", "not-\\xff-utf8"]);
    }
    assert_eq!(scene.get(id, "honest").await.text().await.unwrap(), "honest");
    assert_eq!(scene.server.client().session(id).await.unwrap().phase, Phase::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_goes_up_and_down_and_one_byte_too_much_is_refused() {
    let Some(scene) = Scene::on_gvisor("a_large_file").await else { return };
    let disk = 96 * MIB;
    let id = scene
        .start(
            "open('ready', 'w').close()\nimport time\ntime.sleep(600)",
            json!({"wallClockMs": 300_000, "diskBytes": disk}),
        )
        .await;
    let large = content(64 * MIB);
    let digest = sha256(&large);
    let stored: StoredFile = scene.put(id, "a/large", large.clone()).await.json().await.unwrap();
    assert_eq!((stored.size, &stored.sha256), (large.len() as u64, &digest));
    let back = scene.get(id, "a/large").await.bytes().await.unwrap();
    assert_eq!(sha256(&back), digest);
    // Announced, and as it comes: nothing is left either way, and nobody is ended for it.
    for known in [true, false] {
        let over = content(disk - large.len() + 256 * 1024);
        let body = if known {
            Body::from(over)
        } else {
            Body::wrap_stream(futures::stream::iter([Ok::<_, std::io::Error>(over)]))
        };
        assert_eq!(code(scene.put(id, "over", body).await).await, "disk_exceeded", "{known}");
        assert_eq!(scene.names(id).await, ["a", "a/large", "ready"]);
    }
    assert_eq!(code(scene.put(id, "over", content(disk + 1)).await).await, "disk_exceeded");
    // A client that breaks off.
    let broken = [Ok(content(3 * MIB)), Err(std::io::Error::other("gone"))];
    scene
        .http
        .put(scene.url(id, "half"))
        .body(Body::wrap_stream(futures::stream::iter(broken)))
        .send()
        .await
        .unwrap_err();
    // What had come of it gives its room back once the server has noticed.
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let rest = scene.put(id, "rest", content(disk - large.len() - MIB)).await;
        if rest.status() == StatusCode::OK {
            break;
        }
        assert_eq!(code(rest).await, "disk_exceeded");
        assert!(Instant::now() < deadline, "what broke off is still there");
    }
    assert_eq!(scene.names(id).await, ["a", "a/large", "ready", "rest"]);
    assert_eq!(scene.server.client().session(id).await.unwrap().phase, Phase::Running);
    let written = scene.server.client().audit(id, None).await.unwrap().items;
    let written: Vec<_> = written.iter().filter(|event| event.kind == AuditType::FileWritten).collect();
    assert_eq!(written.len(), 2, "{written:?}");
    assert_eq!(written[0].data["sha256"], digest.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_beside_a_request_are_there_when_the_program_starts() {
    let Some(scene) = Scene::on_gvisor("files::beside").await else { return };
    let folder = tempfile::tempdir().unwrap();
    let large = content(64 * MIB);
    let local = |name: &str, content: &[u8]| {
        std::fs::write(folder.path().join(name), content).unwrap();
        folder.path().join(name)
    };
    let tool = b"#!/bin/sh\necho the tool runs";
    let files = |large: &[u8]| {
        vec![
            LocalFile { local: local("large", large), path: "in/gr\u{fc}\u{df}e \"x\".bin".into(), executable: false },
            LocalFile { local: local("tool", tool), path: "bin/tool".into(), executable: true },
        ]
    };
    let code = "import hashlib, subprocess\n\
                name = 'in/gr\u{fc}\u{df}e \"x\".bin'\n\
                print(hashlib.sha256(open(name, 'rb').read()).hexdigest(), flush=True)\n\
                subprocess.run(['bin/tool'], check=True)";
    let limits = Limits { disk_bytes: Some((64 * MIB + tool.len()) as u64), ..Limits::default() };
    let request = CreateSession { code: Some(code.into()), limits, ..CreateSession::default() };
    let client = scene.server.client();
    let made = client.create_with_files(&request, files(&large)).await.unwrap();
    let result = client.result(made.id, Duration::from_mins(2)).await.unwrap();
    assert_eq!(result.stdout_tail, format!("{}\nthe tool runs\n", sha256(&large)), "{result:?}");
    let over = client.create_with_files(&request, files(&content(64 * MIB + 1))).await.unwrap_err();
    assert_eq!(over.problem().unwrap().code, ErrorCode::DiskExceeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_small_files_are_listed_in_about_a_second() {
    let Some(scene) = Scene::on_gvisor("ten_thousand_small_files").await else { return };
    let program = "import os, time\nfor d in range(100):\n    os.mkdir(f'd{d}')\n    for f in range(100): open(f'd{d}/f{f}', 'w').close()\n\
                   open('ready', 'w').close()\ntime.sleep(600)";
    let id = scene.start(program, json!({"wallClockMs": 300_000})).await;
    let began = Instant::now();
    let names = scene.names(id).await;
    let took = began.elapsed();
    assert_eq!(names.len(), 10_101);
    println!("10 000 files were listed in {took:?}");
    // With room for a machine that is busy with other tests.
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_read_ends_in_an_error_and_never_in_a_lie() {
    let Some(scene) = Scene::on_gvisor("a_file_that_changes").await else { return };
    let program = "import os, time\nopen('changing', 'wb').write(b'a' * (8 << 20))\nopen('ready', 'w').close()\n\
                   while not os.path.exists('go'): time.sleep(0.001)\nos.truncate('changing', 1 << 20)\ntime.sleep(600)";
    let id = scene.start(program, json!({"wallClockMs": 300_000})).await;
    let mut response = scene.get(id, "changing").await;
    assert_eq!(response.headers()["content-length"], (8 * MIB).to_string());
    let mut read = response.chunk().await.unwrap().unwrap().len();
    scene.put(id, "go", "").await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while scene.get(id, "changing").await.content_length() != Some(MIB as u64) {
        assert!(Instant::now() < deadline, "it does not change");
    }
    let ended = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => read += chunk.len(),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    // What was in flight already may be all of it; then it is all of what it was.
    assert_eq!(ended.is_ok(), read == 8 * MIB, "{read} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_whatever_is_on_its_way() {
    let Some(scene) = Scene::on_gvisor("limits_hold").await else { return };
    let id = scene.start("open('ready', 'w').close()\nwhile True: pass", json!({"wallClockMs": 3_000})).await;
    let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0; 1000]));
    let slow = futures::StreamExt::then(endless, |piece| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        piece
    });
    let put = scene.http.put(scene.url(id, "endless")).body(Body::wrap_stream(slow)).send().await;
    if let Ok(response) = put {
        assert_eq!(code(response).await, "wrong_state");
    }
    let result = scene.server.client().result(id, Duration::from_mins(1)).await.unwrap();
    assert_eq!((result.outcome, result.kill_reason), (Outcome::Killed, Some(KillReason::WallClockExceeded)));
}
