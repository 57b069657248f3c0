//! What the server and a session's gateway say to one another, over an inherited socket: one JSON object a line.
//!
//! The server speaks first: [`ToGateway::Configure`], once; then changes of secrets. The gateway answers with
//! [`FromGateway::Ready`], and from then on tells what it decided. It ends when the session's pipe has ended and
//! everything was told, or when the server closes the socket.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wire::{AuditSource, AuditType, BindingId, BindingSpec, Denial, SessionId, Timestamp};

use crate::{
    egress::Policy,
    secret::{self, Secret},
};

/// Longest line in either direction.
pub const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

/// From the server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToGateway {
    /// What this gateway is there for.
    Configure(Box<GatewaySpec>),
    /// A binding has another secret from now on.
    Rotate {
        /// Which.
        binding: BindingId,
        /// What it is now.
        credential: Credential,
    },
}

/// All that a gateway has to know of its one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewaySpec {
    /// The session, for what goes to people.
    pub session: SessionId,
    /// What it may reach.
    pub policy: Policy,
    /// How much.
    pub limits: GatewayLimits,
    /// Its bindings.
    pub bindings: Vec<BoundService>,
}

/// A binding that the session may use, with its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundService {
    /// Its id.
    pub id: BindingId,
    /// What it is.
    pub spec: BindingSpec,
    /// Its secret.
    pub credential: Credential,
}

/// A binding's secret, on its way to the gateway and inside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// The secret itself.
    #[serde(serialize_with = "secret::expose")]
    pub value: Secret,
    /// `oauth2_refresh`: the client's.
    #[serde(default, serialize_with = "secret::expose_some")]
    pub client_secret: Option<Secret>,
    /// `aws_sigv4`: of a temporary key.
    #[serde(default, serialize_with = "secret::expose_some")]
    pub session_token: Option<Secret>,
}

/// Bounds of one session's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayLimits {
    /// Connections at once.
    pub connections: u32,
    /// Connections in the session's life.
    pub total_connections: u64,
    /// Bytes in both directions together, in the session's life.
    pub bytes: u64,
    /// How long a connection may carry nothing, in milliseconds.
    pub idle_ms: u64,
    /// How long a connection may take to be made, in milliseconds.
    pub connect_ms: u64,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            total_connections: 100_000,
            bytes: 64 << 30,
            idle_ms: 5 * 60 * 1000,
            connect_ms: 10 * 1000,
        }
    }
}

/// From the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromGateway {
    /// It is configured, and serves.
    Ready,
    /// Something to be written down. Sent before the first byte of what it allows is moved.
    Event(GatewayEvent),
    /// How many bytes have gone through, both ways together: now and then.
    Usage {
        /// So many, from the beginning.
        egress_bytes: u64,
    },
    /// The session's pipe has ended, and everything was told. A gateway that ends without it has failed.
    Done {
        /// Bytes that have gone through in all.
        egress_bytes: u64,
    },
}

/// A decision of the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GatewayEvent {
    /// When.
    pub ts: Timestamp,
    /// What.
    pub kind: AuditType,
    /// Who saw it: the gateway; the runner for what was only claimed from inside.
    pub source: AuditSource,
    /// Details.
    pub data: Value,
    /// For the result, if it was a refusal.
    pub denial: Option<Denial>,
}
