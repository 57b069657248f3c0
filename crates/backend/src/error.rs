//! Why a backend could not do something: one enum per operation.

use std::io;

use crate::{GatewayError, SandboxId, channel::ChannelError};

/// Why a sandbox could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// There is no such image.
    #[error("no image named {0:?}")]
    NoImage(String),
    /// A step on the host failed.
    #[error("{step}")]
    Setup {
        /// What was tried: `create cgroup`, `start runsc`.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The runner did not say hello, or said it wrongly.
    #[error("runner handshake")]
    Handshake(#[source] ChannelError),
    /// The sandbox ended before its runner was connected.
    #[error("sandbox ended while it booted: {0}")]
    Died(String),
    /// It failed, and what had been made of it could not be removed.
    #[error("sandbox {id} did not boot, and something of it is left")]
    Left {
        /// What to destroy.
        id: SandboxId,
        /// Why it failed.
        #[source]
        source: Box<PrepareError>,
    },
}

impl PrepareError {
    /// The same failure, of a sandbox that still has to be destroyed.
    #[must_use]
    pub fn leaving(self, id: SandboxId) -> Self {
        Self::Left { id, source: Box::new(self) }
    }

    /// Whether the next sandbox of this shape may boot, and nothing is left of this one.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Setup { .. } | Self::Handshake(_) | Self::Died(_) => true,
            Self::NoImage(_) | Self::Left { .. } => false,
        }
    }

    /// The sandbox that still has to be destroyed.
    pub fn left(&self) -> Option<&SandboxId> {
        match self {
            Self::Left { id, .. } => Some(id),
            Self::NoImage(_) | Self::Setup { .. } | Self::Handshake(_) | Self::Died(_) => None,
        }
    }
}

/// Why a session's limits could not be put into force.
#[derive(Debug, thiserror::Error)]
pub enum AssignError {
    /// A limit could not be set.
    #[error("{step}")]
    Limit {
        /// Which: `memory.max`.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its gateway does not serve.
    #[error("gateway")]
    Gateway(#[from] GatewayError),
    /// The sandbox ended in the meantime.
    #[error("sandbox {0} is gone")]
    Gone(SandboxId),
}

/// Why a sandbox could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// There is no such sandbox (any more).
    #[error("no sandbox {0}")]
    Gone(SandboxId),
    /// The backend cannot be reached or does not answer as it should.
    #[error("{step}")]
    Unreachable {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Why a sandbox could not be removed at all. What remains after a partial success is a [`crate::Residue`].
#[derive(Debug, thiserror::Error)]
pub enum DestroyError {
    /// A step failed in a way that says nothing about what is left.
    #[error("{step}")]
    Failed {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// It took too long; a later try may do it.
    #[error("not gone after {0:?}")]
    TimedOut(std::time::Duration),
}
