//! The host's end of a session's gateway: what the driver hears from it and tells it.
//!
//! Who runs the gateway (a process of its own beside a real sandbox, a model in the simulator) holds the
//! [`GatewayEnd`]; the driver holds the [`Gateway`].

mod link;

use std::path::PathBuf;

use model::gateway::{Credential, FromGateway, ToGateway};
use tokio::sync::mpsc;
use wire::BindingId;

pub use link::{GatewayError, GatewayLink};

/// The program that is a gateway when it is started with these arguments and then `--control FD --pipe FD`: descriptors
/// that it inherits, of its control socket and of the pipe to the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayProgram {
    /// The file.
    pub program: PathBuf,
    /// What comes before those two.
    pub arguments: Vec<String>,
}

/// Messages of a gateway that wait for the driver. Behind them the gateway waits.
const BACKLOG: usize = 256;

/// What the driver holds.
#[derive(Debug)]
pub struct Gateway {
    events: mpsc::Receiver<FromGateway>,
    handle: GatewayHandle,
}

/// Tells a gateway of changes. Can be given to others.
#[derive(Debug, Clone)]
pub struct GatewayHandle {
    orders: mpsc::Sender<ToGateway>,
}

/// What whoever runs the gateway holds.
#[derive(Debug)]
pub struct GatewayEnd {
    /// What the gateway said.
    pub events: mpsc::Sender<FromGateway>,
    /// What it is to be told.
    pub orders: mpsc::Receiver<ToGateway>,
}

/// The gateway has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the gateway has ended")]
pub struct GatewayGone;

impl Gateway {
    /// Both ends.
    pub fn pair() -> (Self, GatewayEnd) {
        let (said, events) = mpsc::channel(BACKLOG);
        let (orders, told) = mpsc::channel(BACKLOG);
        (Self { events, handle: GatewayHandle { orders } }, GatewayEnd { events: said, orders: told })
    }

    /// What it says next; none when it has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<FromGateway> {
        self.events.recv().await
    }

    /// A handle to tell it of changes.
    pub fn handle(&self) -> GatewayHandle {
        self.handle.clone()
    }
}

impl GatewayHandle {
    /// Gives a binding another secret.
    pub async fn rotate(&self, binding: BindingId, credential: Credential) -> Result<(), GatewayGone> {
        self.orders.send(ToGateway::Rotate { binding, credential }).await.map_err(|_| GatewayGone)
    }
}
