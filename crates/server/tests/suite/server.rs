//! A real server for end-to-end tests: the built binary, a data directory of its own, the public API.

use std::{
    net::TcpListener,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use client::Client;
use sha2::{Digest as _, Sha256};

/// How long a server may take until it is ready, or gone.
const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) struct Server {
    child: Child,
    port: u16,
    backend: String,
    extra: Vec<String>,
    pub(crate) data: PathBuf,
    // Removed with the last user.
    _keep: std::sync::Arc<tempfile::TempDir>,
}

impl Server {
    /// Starts `enclave serve` and waits until it is ready.
    pub(crate) async fn start(backend: &str, extra: &[&str]) -> Self {
        let keep = std::sync::Arc::new(tempfile::tempdir().unwrap());
        let extra: Vec<String> = extra.iter().map(ToString::to_string).collect();
        let (port, data) = (free_port(), keep.path().join("data"));
        let child = spawn(backend, port, &data, &extra);
        let mut server = Self { child, port, backend: backend.to_owned(), extra, data, _keep: keep };
        server.ready().await;
        server
    }

    /// Starts it again on the same data directory.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.backend, self.port, &self.data, &self.extra);
        self.ready().await;
    }

    /// SIGKILL, and nothing else.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// SIGTERM; gives whether it left with success, and how long that took.
    pub(crate) fn terminate(&mut self) -> (bool, Duration) {
        let began = Instant::now();
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.success(), began.elapsed());
            }
            assert!(began.elapsed() < PATIENCE, "the server did not leave");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.url(), None).unwrap()
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
    }

    /// The directories in the host's cgroup trees that hold this server's sandboxes, named after its data directory.
    pub(crate) fn groups(&self) -> Vec<PathBuf> {
        let name = format!("enclave-{}", &hex::encode(Sha256::digest(self.data.as_os_str().as_bytes()))[..12]);
        let trees = std::fs::read_dir("/sys/fs/cgroup").unwrap().map(|tree| tree.unwrap().path());
        trees.chain([PathBuf::from("/sys/fs/cgroup")]).map(|tree| tree.join(&name)).filter(|dir| dir.is_dir()).collect()
    }

    /// Checks the audit log's chain with the CLI, from the data directory alone.
    pub(crate) fn audit_verifies(&self) -> Result<String, String> {
        let output = Command::new(env!("CARGO_BIN_EXE_enclave"))
            .args(["audit", "verify", "--data-dir"])
            .arg(&self.data)
            .output()
            .unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(text) } else { Err(text) }
    }

    async fn ready(&mut self) {
        let began = Instant::now();
        let client = self.client();
        loop {
            if client.readiness().await.is_ok_and(|ready| ready.status == wire::HealthStatus::Ok) {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server left with {status}: {}", self.log());
            }
            assert!(began.elapsed() < PATIENCE, "the server is not ready: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the server wrote.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        crate::leave::leave(&mut self.child);
    }
}

fn spawn(backend: &str, port: u16, data: &Path, extra: &[String]) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(data.with_extension("log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_enclave"))
        .args(["serve", "--profile", "dev", "--backend", backend])
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .arg("--data-dir")
        .arg(data)
        .args(extra)
        .env("CANARY", "canary-of-the-host")
        // What is on the host is then what sessions have made; those that are about the pool say otherwise.
        .env("ENCLAVE_WARM", "0")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A port below those that the kernel gives to connections, from a stretch of this process's own: a server that is started
/// again must not find it taken by a neighbour's connection.
fn free_port() -> u16 {
    let stretch = u16::try_from(std::process::id() % 2_000).unwrap();
    (10_000 + stretch * 10..32_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

/// Backends that can run here, tried for real; what is missing is printed as a skip.
pub(crate) fn backends(test: &str) -> Vec<&'static str> {
    let mut present = vec!["simulator"];
    let trial = Command::new(env!("CARGO_BIN_EXE_enclave"))
        .args(["run", "--backend", "gvisor", "-"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&trial.stderr);
    // An empty program is refused by the server, so a refusal of it means that there is a server.
    if said.contains("must not be empty") {
        present.push("gvisor");
    } else {
        println!("SKIP {test} on gvisor: {}", said.lines().next().unwrap_or("no reason given"));
    }
    present
}
