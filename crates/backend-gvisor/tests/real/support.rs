//! A backend on this host for a test, and a program run in it through the frames.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use backend::{
    Gateway, Observation, Residue, SandboxId, SandboxSpec, SessionBackend as _, Shape, Termination,
    channel::{Receiver, Sender},
};
use backend_gvisor::{Gvisor, GvisorConfig, ImageRef, find_runsc};
use model::{Language, gateway::GatewaySpec, limits::Limits};
use protocol::{GuestFrame, GuestLimit, HostFrame, Start, Stream};

pub(crate) const MIB: u64 = 1024 * 1024;
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// What a real sandbox needs and this host may lack.
pub(crate) fn requirements() -> Result<(PathBuf, PathBuf), &'static str> {
    if !rustix::process::geteuid().is_root() {
        return Err("root");
    }
    let runsc = find_runsc().ok_or("runsc in PATH or ENCLAVE_RUNSC")?;
    // Where `enclave image build` puts it for root.
    let images = std::env::var_os("ENCLAVE_IMAGE_DIR").map_or_else(|| "/var/lib/enclave/images".into(), PathBuf::from);
    let image = images.join("default/root.erofs");
    if image.exists() { Ok((runsc, image)) } else { Err("an image: enclave image build") }
}

/// A backend with a state directory of its own.
pub(crate) struct Host {
    pub(crate) gvisor: Arc<Gvisor>,
    pub(crate) config: GvisorConfig,
    _state: Option<tempfile::TempDir>,
}

pub(crate) fn config(runsc: PathBuf, image: PathBuf, state: PathBuf) -> GvisorConfig {
    let mut random = [0; 6];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).unwrap();
    let instance = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut config = GvisorConfig::new(runsc, state, instance);
    config.images.push(ImageRef { name: "default".into(), root: image });
    config
}

/// Opens a backend, or prints why the test is skipped.
pub(crate) async fn host(test: &str) -> Option<Host> {
    match requirements() {
        Ok((runsc, image)) => {
            let state = tempfile::tempdir().unwrap();
            let config = config(runsc, image, state.path().join("gvisor"));
            Some(Host { _state: Some(state), ..Host::open(config).await })
        }
        Err(missing) => {
            println!("SKIP {test}: {missing}");
            None
        }
    }
}

/// A program to run.
pub(crate) struct Program {
    pub(crate) language: Language,
    pub(crate) code: String,
    pub(crate) limits: Limits,
    /// What its gateway is told, if it has a way out.
    pub(crate) gateway: Option<GatewaySpec>,
}

pub(crate) fn python(code: &str) -> Program {
    Program { language: Language::Python, code: code.into(), limits: Limits::default(), gateway: None }
}

pub(crate) fn node(code: &str) -> Program {
    Program { language: Language::Node, ..python(code) }
}

impl Program {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape {
            image: "default".into(),
            language: self.language,
            disk_bytes: self.limits.disk_bytes,
            egress: self.gateway.is_some(),
        }
    }

    pub(crate) fn spec(&self) -> SandboxSpec {
        SandboxSpec { limits: self.limits, gateway: self.gateway.clone(), grace: Duration::ZERO }
    }
}

/// A program that runs.
pub(crate) struct Running {
    pub(crate) id: SandboxId,
    /// Held, because closing it ends the sandbox.
    _sender: Sender,
    pub(crate) receiver: Receiver,
    pub(crate) gateway: Option<Gateway>,
}

/// What was seen of a program.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) results: Vec<String>,
    pub(crate) exceeded: Vec<GuestLimit>,
    pub(crate) exit: Option<i32>,
    pub(crate) fault: Option<String>,
}

/// All that is known at the end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) seen: Seen,
    /// None when the program ended before the sandbox.
    pub(crate) termination: Option<Termination>,
    pub(crate) observation: Observation,
    pub(crate) took: Duration,
}

impl Host {
    pub(crate) async fn open(config: GvisorConfig) -> Self {
        let gvisor = Gvisor::open(config.clone()).await.unwrap_or_else(|error| panic!("{error}: {error:?}"));
        Self { gvisor: Arc::new(gvisor), config, _state: None }
    }

    pub(crate) async fn start(&self, program: &Program) -> Running {
        let prepared = self.gvisor.prepare(&program.shape()).await.unwrap();
        let sandbox = self.gvisor.assign(prepared, &program.spec()).await.unwrap();
        let (mut sender, receiver) = sandbox.channel.assign("ses_1");
        let start = Start {
            session_id: "ses_1".into(),
            language: match program.language {
                Language::Python => protocol::Language::Python,
                Language::Node => protocol::Language::Node,
            },
            code: program.code.clone(),
            args: Vec::new(),
            env: Vec::new(),
            pids: program.limits.pids,
            output_bytes: program.limits.output_bytes,
            disk_bytes: program.limits.disk_bytes,
            entrypoint: None,
            interactive: false,
            stays: false,
        };
        sender.send(&HostFrame::Start(Box::new(start))).await.unwrap();
        Running { id: sandbox.id, _sender: sender, receiver, gateway: sandbox.gateway }
    }

    /// Runs a program to the end of it or of its sandbox, and destroys the sandbox.
    pub(crate) async fn run(&self, program: &Program) -> Ended {
        let began = Instant::now();
        let running = self.start(program).await;
        let ended = self.finish(running).await;
        Ended { took: began.elapsed(), ..ended }
    }

    /// Follows a program to the end of it or of its sandbox, and destroys the sandbox.
    pub(crate) async fn finish(&self, running: Running) -> Ended {
        self.finish_after(running, async {}).await.0
    }

    /// The same, and what is to be had of a sandbox between its program's end and its own removal.
    pub(crate) async fn finish_after<T>(&self, mut running: Running, last: impl Future<Output = T>) -> (Ended, T) {
        let began = Instant::now();
        let mut seen = Seen::default();
        let termination = tokio::time::timeout(PATIENCE, self.follow(&mut running, &mut seen)).await;
        let termination = termination.unwrap_or_else(|_| panic!("it does not end: {seen:?}"));
        let observation = self.gvisor.observe(&running.id).await.unwrap();
        let took = began.elapsed();
        let last = tokio::time::timeout(PATIENCE, last).await.expect("what is to be had last");
        self.reclaim(&running.id).await;
        (Ended { seen, termination, observation, took }, last)
    }

    /// Starts a program and waits for the first thing that it writes.
    pub(crate) async fn start_and_hear(&self, program: &Program) -> Running {
        let mut running = self.start(program).await;
        let heard =
            async { while !matches!(running.receiver.next().await.unwrap(), Some(GuestFrame::Output { .. })) {} };
        tokio::time::timeout(PATIENCE, heard).await.unwrap();
        running
    }

    async fn follow(&self, running: &mut Running, seen: &mut Seen) -> Option<Termination> {
        let wait = self.gvisor.wait(&running.id);
        tokio::pin!(wait);
        let mut termination = None;
        loop {
            tokio::select! {
                ended = &mut wait, if termination.is_none() => termination = Some(ended.unwrap()),
                frame = running.receiver.next() => match frame {
                    Ok(Some(frame)) => {
                        let last = matches!(frame, GuestFrame::Exited { .. } | GuestFrame::Fault { .. } | GuestFrame::NotPut { .. });
                        if matches!(frame, GuestFrame::Exceeded { .. }) {
                            self.gvisor.kill(&running.id).await.unwrap();
                        }
                        seen.take(frame);
                        if last {
                            return termination;
                        }
                    }
                    Ok(None) | Err(_) => {
                        return Some(match termination {
                            Some(termination) => termination,
                            None => wait.await.unwrap(),
                        });
                    }
                }
            }
        }
    }

    pub(crate) async fn reclaim(&self, id: &SandboxId) {
        assert_eq!(self.gvisor.destroy(id).await.unwrap(), Residue::none());
        assert!(!self.gvisor.list().await.unwrap().contains(id));
    }
}

impl Host {
    /// Whatever this instance has on the host. Its groups alone are not counted.
    pub(crate) fn traces(&self) -> Vec<String> {
        let mut traces = entries(&self.config.state_dir.join("sandboxes"));
        for tree in
            entries(Path::new("/sys/fs/cgroup")).into_iter().map(PathBuf::from).chain([PathBuf::from("/sys/fs/cgroup")])
        {
            let group = tree.join(format!("enclave-{}", self.config.instance));
            traces.extend(entries(&group).into_iter().filter(|path| path.contains("/sbx-")));
        }
        traces.extend(zombies());
        traces
    }

    /// The processes of a sandbox that live on the host.
    pub(crate) fn processes(&self, id: &SandboxId) -> Vec<u32> {
        let name = format!("/enclave-{}/{id}", self.config.instance);
        let pids = entries(Path::new("/proc")).into_iter().filter_map(|path| path.rsplit('/').next()?.parse().ok());
        let read = |pid: &u32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let is_in = |pid: &u32| read(pid, "cgroup").contains(&name) && !read(pid, "status").contains("State:\tZ");
        pids.filter(is_in).collect()
    }
}

fn entries(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path().display().to_string()).collect()
}

/// Children of this process that nobody has waited for.
fn zombies() -> Vec<String> {
    let threads = entries(Path::new("/proc/self/task")).into_iter();
    let children = threads.map(|thread| fs::read_to_string(format!("{thread}/children")).unwrap_or_default());
    let pids: Vec<String> =
        children.flat_map(|pids| pids.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
    let state = |pid: &String| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    pids.into_iter().filter(|pid| state(pid).contains("State:\tZ")).map(|pid| format!("zombie {pid}")).collect()
}

/// Looks again and again until it holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Seen {
    fn take(&mut self, frame: GuestFrame) {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        match frame {
            GuestFrame::Output { stream: Stream::Stdout, data } => self.stdout += &text(data),
            GuestFrame::Output { stream: Stream::Stderr, data } => self.stderr += &text(data),
            GuestFrame::Result { json } => self.results.push(text(json)),
            GuestFrame::Exceeded { limit } => self.exceeded.push(limit),
            GuestFrame::Exited { exit, .. } => self.exit = Some(exit.code()),
            GuestFrame::Fault { message } | GuestFrame::NotPut { message, .. } => self.fault = Some(message),
            GuestFrame::Hello { .. }
            | GuestFrame::Started { .. }
            | GuestFrame::Turned(_)
            | GuestFrame::File(_)
            | GuestFrame::Terminal(_) => {}
        }
    }
}
