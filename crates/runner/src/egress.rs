//! The way out as the sandbox sees it: proxies, DNS and a port for caught connections on loopback, each connection
//! carried to the gateway over a stream of its own.
//!
//! [`open`] sets it up while this process has the privileges; [`Egress::start`] then hands it to a thread that has none,
//! and that parses nothing: what a connection is for is told by the port that it came to, and by the sandbox's kernel.
//! What is inside may be in a workload's hands; everything is decided outside.

mod attempts;
mod capture;
mod control;
mod dns;
mod door;
mod relay;
mod serve;
mod settle;

use std::{io, net::UdpSocket, sync::mpsc, thread};

use protocol::egress::{DNS, DNS_PORT};
use rustix::{
    fd::OwnedFd,
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::CapabilitySet,
};

pub(crate) use self::settle::Settler;
use self::{attempts::Watch, control::Control, dns::Stub, door::Door, serve::Server};
use crate::setup;

/// Enough for the thread's few frames; its buffers are elsewhere.
const STACK_BYTES: usize = 128 * 1024;
/// Connections at once: what the gateway grants as well.
const MAX_CONNECTIONS: usize = 1024;
/// Open files of this process besides connections: about 30, and some room.
const OTHER_FILES: usize = 64;

/// Everything that takes privileges to get.
#[derive(Debug)]
pub(crate) struct Egress {
    control: Control,
    /// Connections at once, those that wait for a stream included. One more is closed.
    most: usize,
    doors: Vec<Door>,
    stub: Stub,
    watch: Watch,
}

/// Why there is no way out.
#[derive(Debug)]
pub(crate) enum EgressError {
    /// The sandbox's kernel refused a step.
    Kernel(&'static str, Errno),
    /// A port could not be had.
    Listen(&'static str, io::Error),
    /// There is no thread.
    Thread(io::Error),
}

impl std::fmt::Display for EgressError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kernel(step, errno) => write!(f, "egress: {step}: {errno}"),
            Self::Listen(what, error) => write!(f, "egress: listening for {what}: {error}"),
            Self::Thread(error) => write!(f, "egress: starting the thread: {error}"),
        }
    }
}

/// Sets up capture and opens everything.
pub(crate) fn open(control: OwnedFd) -> Result<Egress, EgressError> {
    let kernel = |step| move |errno| EgressError::Kernel(step, errno);
    let listen = |what| move |error| EgressError::Listen(what, error);
    let socket = UdpSocket::bind((DNS, DNS_PORT)).map_err(listen("DNS"))?;
    socket.set_nonblocking(true).map_err(listen("DNS"))?;
    let (doors, capture_port) = Door::open_all().map_err(listen("connections"))?;
    capture::add_routes().map_err(kernel("adding routes"))?;
    capture::redirect(capture_port).map_err(kernel("redirecting connections"))?;
    let most = most_connections().map_err(kernel("raising the limit of open files"))?;
    let watch = Watch::open().map_err(kernel("opening raw sockets"))?;
    Ok(Egress { control: Control::new(control), most, doors, stub: Stub::new(socket), watch })
}

/// As many connections as this process may have open files for.
fn most_connections() -> Result<usize, Errno> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let files = limit.maximum.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    Ok((files.saturating_sub(OTHER_FILES) / 2).min(MAX_CONNECTIONS))
}

impl Egress {
    /// Serves it on a thread of its own, until the gateway goes away.
    pub(crate) fn start(self) -> Result<Settler, EgressError> {
        let (settler, settle) = settle::pair().map_err(|errno| EgressError::Kernel("preparing its end", errno))?;
        let (ready, told) = mpsc::channel();
        let serve = move || {
            // Capabilities are each thread's own.
            let prepared = setup::keep(CapabilitySet::empty())
                .and_then(|()| Server::new(self, settle))
                .map_err(|errno| EgressError::Kernel("preparing the thread", errno));
            let server = match prepared {
                Ok(server) => server,
                Err(error) => return drop(ready.send(Err(error))),
            };
            if ready.send(Ok(())).is_ok() {
                server.run();
            }
        };
        thread::Builder::new().stack_size(STACK_BYTES).spawn(serve).map_err(EgressError::Thread)?;
        told.recv().map_err(|error| EgressError::Thread(io::Error::other(error)))??;
        Ok(settler)
    }
}
