//! A simulator under any name, of which some sandboxes cannot be removed.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use backend::{
    AssignError, Capabilities, Channel, DestroyError, Observation, ObserveError, PrepareError, Prepared, Residue,
    Sandbox, SandboxId, SandboxLimit, SandboxSpec, SessionBackend, Shape, Termination, simulator::Simulator,
};
use protocol::{Decoder, GuestFrame, HostFrame, Start, VERSION, encode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_util::sync::CancellationToken;
use wire::ExecMode;

use super::talk;

pub(crate) struct Wrapped {
    simulator: Arc<Simulator>,
    capabilities: Capabilities,
    /// Sandboxes of which something is left, whoever removes them.
    pub(crate) stubborn: Mutex<HashSet<SandboxId>>,
    lists_badly: AtomicBool,
    pub(crate) kills: AtomicUsize,
    lists: AtomicUsize,
    /// What the sandboxes with a way out say instead of running anything: these are the clones.
    pub(crate) clones: Mutex<Option<Script>>,
    /// Ends of the sandboxes, when all of them are played by [`talk::play`].
    talks: Option<Mutex<HashMap<SandboxId, CancellationToken>>>,
}

/// What a runner says once its program was sent.
pub(crate) type Script = Arc<dyn Fn(&Start) -> Vec<GuestFrame> + Send + Sync>;

impl Wrapped {
    pub(crate) fn new(simulator: Arc<Simulator>, name: &'static str) -> Self {
        let capabilities = Capabilities { name, ..simulator.capabilities().clone() };
        Self::able(simulator, capabilities)
    }

    /// One that says that it can clone.
    pub(crate) fn cloning(simulator: Arc<Simulator>) -> Self {
        let capabilities = Capabilities { executes: true, egress_allowlist: true, ..simulator.capabilities().clone() };
        Self::able(simulator, capabilities)
    }

    /// One whose sandboxes take turns.
    pub(crate) fn talking(simulator: Arc<Simulator>) -> Self {
        let exec_modes = vec![ExecMode::Oneshot, ExecMode::Interactive];
        let capabilities = Capabilities { exec_modes, ..simulator.capabilities().clone() };
        Self { talks: Some(Mutex::default()), ..Self::able(simulator, capabilities) }
    }

    fn able(simulator: Arc<Simulator>, capabilities: Capabilities) -> Self {
        Self {
            simulator,
            capabilities,
            stubborn: Mutex::default(),
            lists_badly: AtomicBool::new(false),
            kills: AtomicUsize::new(0),
            lists: AtomicUsize::new(0),
            clones: Mutex::default(),
            talks: None,
        }
    }

    /// The end of a sandbox that takes turns.
    fn talk(&self, id: &SandboxId) -> Option<CancellationToken> {
        self.talks.as_ref()?.lock().unwrap().get(id).cloned()
    }

    /// Every second list fails from now on.
    pub(crate) fn list_badly(&self) {
        self.lists_badly.store(true, Ordering::SeqCst);
    }

    /// How often the engine has listed.
    pub(crate) fn lists(&self) -> usize {
        self.lists.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl SessionBackend for Wrapped {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn prepare(&self, shape: &Shape) -> Result<Prepared, PrepareError> {
        let prepared = self.simulator.prepare(shape).await?;
        if let Some(talks) = &self.talks {
            let (host, guest) = tokio::io::duplex(1 << 20);
            let ended = CancellationToken::new();
            talks.lock().unwrap().insert(prepared.id.clone(), ended.clone());
            tokio::spawn(talk::play(guest, ended));
            return Ok(over(host, prepared).await);
        }
        let script = self.clones.lock().unwrap().clone().filter(|_| shape.egress);
        let Some(script) = script else { return Ok(prepared) };
        let (host, guest) = tokio::io::duplex(1 << 20);
        tokio::spawn(play(guest, script));
        Ok(over(host, prepared).await)
    }

    async fn assign(&self, prepared: Prepared, spec: &SandboxSpec) -> Result<Sandbox, AssignError> {
        self.simulator.assign(prepared, spec).await
    }

    async fn wait(&self, id: &SandboxId) -> Result<Termination, ObserveError> {
        if let Some(ended) = self.talk(id) {
            ended.cancelled().await;
            return Ok(Termination::Exited);
        }
        self.simulator.wait(id).await
    }

    async fn overrun(&self, id: &SandboxId) -> Result<SandboxLimit, ObserveError> {
        self.simulator.overrun(id).await
    }

    async fn observe(&self, id: &SandboxId) -> Result<Observation, ObserveError> {
        self.simulator.observe(id).await
    }

    async fn kill(&self, id: &SandboxId) -> Result<(), ObserveError> {
        self.kills.fetch_add(1, Ordering::SeqCst);
        if let Some(ended) = self.talk(id) {
            ended.cancel();
        }
        self.simulator.kill(id).await
    }

    async fn destroy(&self, id: &SandboxId) -> Result<Residue, DestroyError> {
        if self.stubborn.lock().unwrap().contains(id) {
            return Ok(Residue(vec![format!("sandbox {id}, which is stubborn")]));
        }
        self.simulator.destroy(id).await
    }

    async fn list(&self) -> Result<Vec<SandboxId>, ObserveError> {
        let is_second = self.lists.fetch_add(1, Ordering::SeqCst) % 2 == 1;
        if is_second && self.lists_badly.load(Ordering::SeqCst) {
            return Err(ObserveError::Unreachable { step: "list", source: std::io::Error::other("as ordered") });
        }
        self.simulator.list().await
    }
}

/// The sandbox behind another pipe.
async fn over(host: DuplexStream, prepared: Prepared) -> Prepared {
    let (reader, writer) = tokio::io::split(host);
    let channel = Channel::handshake(reader, writer, Duration::from_secs(5)).await.unwrap();
    Prepared { channel, ..prepared }
}

/// A runner that says what it was told to say. Silent when that is nothing.
async fn play(mut pipe: DuplexStream, script: Script) {
    pipe.write_all(&encode(&GuestFrame::Hello { version: VERSION }).unwrap()).await.unwrap();
    let (mut decoder, mut buffer) = (Decoder::new(), vec![0; 1 << 16]);
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        decoder.push(&buffer[..count]);
        while let Some(frame) = decoder.next_frame::<HostFrame>().unwrap() {
            let HostFrame::Start(start) = frame else { panic!("a file for a clone") };
            for frame in script(&start) {
                let _ = pipe.write_all(&encode(&frame).unwrap()).await;
            }
        }
    }
}
