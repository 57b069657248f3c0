//! A place of its own for each test: a home, a data directory, and commands that see nothing else of this machine's
//! configuration.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use client::Client;
use serde_json::Value;
use tempfile::TempDir;

/// How long anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) struct Place {
    temp: TempDir,
    /// More of the environment.
    env: Vec<(&'static str, String)>,
}

/// What a command left.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Left {
    pub(crate) fn stdout(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { temp: tempfile::tempdir().unwrap(), env: Vec::new() };
        std::fs::write(place.path("empty.toml"), "").unwrap();
        place
    }

    /// Its commands find these variables.
    pub(crate) fn with(mut self, variables: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.env.extend(variables);
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// A file with this content.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    /// `enclave` with these arguments.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_enclave"));
        for (name, _) in std::env::vars_os() {
            // The image is the machine's; all the rest of the configuration is the test's.
            if name.to_str().is_some_and(|name| name.starts_with("ENCLAVE_") && name != "ENCLAVE_IMAGE_DIR") {
                command.env_remove(&name);
            }
        }
        command
            .args(args)
            .env("HOME", self.path("home"))
            .env_remove("XDG_DATA_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .env("ENCLAVE_CONFIG", self.path("empty.toml"))
            .env("ENCLAVE_DATA_DIR", self.data())
            .env("ENCLAVE_WARM", "0")
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Left {
        Left::of(self.command(args).output().unwrap())
    }

    pub(crate) fn run_with_input(&self, args: &[&str], input: &[u8]) -> Left {
        let mut child =
            self.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        Left::of(child.wait_with_output().unwrap())
    }

    /// A server on a port of its own.
    pub(crate) fn serve(&self, args: &[&str]) -> Server {
        self.try_serve(args).unwrap_or_else(|left| panic!("the server left with {}: {}", left.code, left.stderr))
    }

    /// The same, or what it left when it did not start.
    pub(crate) fn try_serve(&self, args: &[&str]) -> Result<Server, Left> {
        let all = [&["serve", "--listen", "127.0.0.1:0"], args].concat();
        let mut child = self.command(&all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let stderr = child.stderr.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut seen = Vec::new();
        loop {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    let listening = serde_json::from_str::<Value>(&line).ok().filter(|v| v["message"] == "listening");
                    seen.push(line);
                    if let Some(line) = listening {
                        let url = line["url"].as_str().unwrap().to_owned();
                        return Ok(Server { child, lines, seen, url });
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let _ = child.kill();
                    panic!("the server does not listen: {seen:#?}");
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let mut stdout = Vec::new();
                    child.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
                    let code = child.wait().unwrap().code().unwrap_or(-1);
                    return Err(Left { code, stdout, stderr: seen.join("\n") });
                }
            }
        }
    }
}

pub(crate) struct Server {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
    pub(crate) url: String,
}

impl Server {
    pub(crate) fn client(&self, key: Option<&str>) -> Client {
        Client::new(&self.url, key.map(Into::into)).unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits until it has left by itself; gives the exit code.
    pub(crate) fn left(&mut self) -> i32 {
        wait(&mut self.child)
    }

    /// What it has written to stderr so far.
    pub(crate) fn log(&mut self) -> String {
        self.seen.extend(self.lines.try_iter());
        self.seen.join("\n")
    }

    /// Waits until it has logged this.
    pub(crate) fn says(&mut self, what: &str) {
        let began = Instant::now();
        while !self.seen.iter().any(|line| line.contains(what)) {
            let left = PATIENCE.checked_sub(began.elapsed()).unwrap_or_default();
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(error) => panic!("{what:?} was not said ({error}): {:#?}", self.seen),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        crate::leave::leave(&mut self.child);
    }
}

pub(crate) fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

/// Waits for a child within bounds; gives its exit code.
pub(crate) fn wait(child: &mut Child) -> i32 {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        if began.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("the command did not leave");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Names of what is in a directory.
pub(crate) fn entries(dir: &Path) -> Vec<String> {
    let Ok(read) = std::fs::read_dir(dir) else { return Vec::new() };
    read.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
