//! A gateway in a thread, and both of its peers.

use std::{
    io::{IoSliceMut, Write as _},
    mem::MaybeUninit,
    net::SocketAddr,
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use gateway::{GatewayError, Options};
use model::{
    egress::{Deployment, Permit, Policy},
    gateway::{FromGateway, GatewayEvent, GatewayLimits, GatewaySpec, ToGateway},
};
use protocol::egress::{GRANTED, Opening, WANT};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    sync::watch,
    time::timeout,
};
use wire::{AuditType, Egress, SessionId};

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// What a gateway is started with.
pub(crate) struct Setting {
    pub(crate) allow: Value,
    /// Loopback ports that the deployment lets sessions reach.
    pub(crate) ports: Vec<u16>,
    pub(crate) limits: GatewayLimits,
    pub(crate) resolver: Option<SocketAddr>,
}

pub(crate) struct World {
    pipe: StdStream,
    control: tokio::net::unix::OwnedWriteHalf,
    heard: Heard,
    thread: Option<JoinHandle<Result<(), GatewayError>>>,
}

/// What the gateway said.
#[derive(Clone)]
pub(crate) struct Heard {
    said: Arc<Mutex<Vec<FromGateway>>>,
    length: watch::Receiver<usize>,
}

impl Setting {
    pub(crate) fn new(allow: Value, ports: &[u16]) -> Self {
        // Short waits, as everything here is on loopback.
        let limits = GatewayLimits { connect_ms: 5000, ..Default::default() };
        Self { allow, ports: ports.to_vec(), limits, resolver: None }
    }

    pub(crate) fn asking(self, resolver: SocketAddr) -> Self {
        Self { resolver: Some(resolver), ..self }
    }

    pub(crate) fn limited(self, change: impl FnOnce(&mut GatewayLimits)) -> Self {
        let mut limits = self.limits;
        change(&mut limits);
        Self { limits, ..self }
    }

    pub(crate) fn spec(&self) -> GatewaySpec {
        let egress: Egress = serde_json::from_value(json!({ "mode": "allowlist", "allow": self.allow })).unwrap();
        let permit = Permit { net: "127.0.0.1/32".parse().unwrap(), ports: self.ports.clone() };
        let permitted = if self.ports.is_empty() { Vec::new() } else { vec![permit] };
        let deployment = Deployment { permitted, own: Vec::new() };
        GatewaySpec {
            session: SessionId::from_uuid(uuid::Uuid::from_u128(7)),
            policy: Policy::new(&egress, deployment),
            limits: self.limits,
            bindings: Vec::new(),
        }
    }

    pub(crate) async fn start(self) -> World {
        let mut world = World::unconfigured(Options { user: None, resolver: self.resolver });
        world.order(&ToGateway::Configure(Box::new(self.spec()))).await;
        world.heard.wait(|said| matches!(said, FromGateway::Ready)).await;
        world
    }
}

impl World {
    pub(crate) fn unconfigured(options: Options) -> Self {
        let (control, its_control) = StdStream::pair().unwrap();
        let (pipe, its_pipe) = StdStream::pair().unwrap();
        let thread =
            std::thread::spawn(move || gateway::serve(OwnedFd::from(its_control), OwnedFd::from(its_pipe), &options));
        control.set_nonblocking(true).unwrap();
        let (from, control) = UnixStream::from_std(control).unwrap().into_split();
        World { pipe, control, heard: Heard::listen(from), thread: Some(thread) }
    }

    pub(crate) async fn order(&mut self, order: &ToGateway) {
        let mut line = serde_json::to_vec(order).unwrap();
        line.push(b'\n');
        self.say(&line).await;
    }

    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        self.control.write_all(bytes).await.unwrap();
    }

    /// Asks for a stream; none when that is refused.
    pub(crate) fn want(&self) -> Option<StdStream> {
        (&self.pipe).write_all(&[WANT]).unwrap();
        self.granted()
    }

    pub(crate) fn pipe(&self) -> &StdStream {
        &self.pipe
    }

    /// The answer to a wish.
    pub(crate) fn granted(&self) -> Option<StdStream> {
        let mut word = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let read =
            recvmsg(&self.pipe, &mut [IoSliceMut::new(&mut word)], &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
        assert_eq!(read.bytes, 1, "the pipe has ended");
        let descriptor = ancillary.drain().find_map(|message| {
            let RecvAncillaryMessage::ScmRights(mut descriptors) = message else { return None };
            descriptors.next()
        });
        assert_eq!(word[0] == GRANTED, descriptor.is_some());
        descriptor.map(StdStream::from)
    }

    pub(crate) fn open(&self, opening: Opening) -> UnixStream {
        let mut stream = self.want().expect("a stream is granted");
        stream.write_all(&protocol::encode(&opening).unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        UnixStream::from_std(stream).unwrap()
    }

    /// Sends bytes as an HTTP client, and reads to the end.
    pub(crate) async fn http(&self, bytes: &str) -> String {
        exchange(&mut self.open(Opening::Http), bytes.as_bytes()).await
    }

    pub(crate) fn heard(&self) -> Heard {
        self.heard.clone()
    }

    /// The next refusal of this reason that has come or comes.
    pub(crate) async fn denied(&self, reason: &str) -> GatewayEvent {
        self.heard.event(|event| event.kind == AuditType::EgressDenied && event.data["reason"] == reason).await
    }

    pub(crate) async fn allowed(&self, protocol: &str) -> GatewayEvent {
        self.heard.event(|event| event.kind == AuditType::EgressAllowed && event.data["protocol"] == protocol).await
    }

    /// Ends the sandbox, and gives all that was said.
    pub(crate) async fn end(mut self) -> Vec<FromGateway> {
        drop(self.pipe);
        let thread = self.thread.take().unwrap();
        let done = tokio::task::spawn_blocking(|| thread.join().unwrap());
        timeout(PATIENCE, done).await.expect("it ends in time").unwrap().expect("it ends well");
        self.heard.ended().await
    }

    /// Ends the server, and gives what became of the gateway.
    pub(crate) async fn abandon(mut self) -> Result<(), GatewayError> {
        drop(self.control);
        let thread = self.thread.take().unwrap();
        let done = tokio::task::spawn_blocking(|| thread.join().unwrap());
        timeout(PATIENCE, done).await.expect("it ends in time").unwrap()
    }
}

impl Heard {
    fn listen(from: tokio::net::unix::OwnedReadHalf) -> Self {
        let said = Arc::new(Mutex::new(Vec::new()));
        let (grow, length) = watch::channel(0);
        let into = said.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(from).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                into.lock().unwrap().push(serde_json::from_str(&line).unwrap());
                grow.send_modify(|length| *length += 1);
            }
        });
        Self { said, length }
    }

    pub(crate) fn all(&self) -> Vec<FromGateway> {
        self.said.lock().unwrap().clone()
    }

    pub(crate) fn events(&self) -> Vec<GatewayEvent> {
        events(&self.all())
    }

    pub(crate) async fn wait(&self, is: impl Fn(&FromGateway) -> bool) -> FromGateway {
        let mut length = self.length.clone();
        let search = async {
            loop {
                if let Some(found) = self.said.lock().unwrap().iter().find(|said| is(said)) {
                    return found.clone();
                }
                length.changed().await.expect("the gateway says it before it ends");
            }
        };
        let found = timeout(PATIENCE, search).await;
        found.unwrap_or_else(|late| panic!("not said in time ({late}); said was {:#?}", self.all()))
    }

    pub(crate) async fn event(&self, is: impl Fn(&GatewayEvent) -> bool) -> GatewayEvent {
        match self.wait(|said| matches!(said, FromGateway::Event(event) if is(event))).await {
            FromGateway::Event(event) => event,
            FromGateway::Ready | FromGateway::Usage { .. } | FromGateway::Done { .. } => {
                unreachable!("an event was found")
            }
        }
    }

    async fn ended(mut self) -> Vec<FromGateway> {
        let end = async { while self.length.changed().await.is_ok() {} };
        timeout(PATIENCE, end).await.expect("the control socket ends");
        self.all()
    }
}

pub(crate) fn events(said: &[FromGateway]) -> Vec<GatewayEvent> {
    said.iter()
        .filter_map(|said| match said {
            FromGateway::Event(event) => Some(event.clone()),
            FromGateway::Ready | FromGateway::Usage { .. } | FromGateway::Done { .. } => None,
        })
        .collect()
}

/// Writes, and reads to the end.
pub(crate) async fn exchange(stream: &mut UnixStream, bytes: &[u8]) -> String {
    stream.write_all(bytes).await.unwrap();
    to_end(stream).await
}

pub(crate) async fn to_end(stream: &mut UnixStream) -> String {
    let mut read = Vec::new();
    // A connection that is cut is an end, too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut read)).await.expect("it ends in time");
    String::from_utf8_lossy(&read).into_owned()
}

/// Reads the head of an answer, and nothing behind it.
pub(crate) async fn head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    let read = async {
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
    };
    timeout(PATIENCE, read).await.expect("an answer comes");
    String::from_utf8(head).unwrap()
}
