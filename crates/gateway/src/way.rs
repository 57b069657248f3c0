//! The control plane's own way out, for its webhooks: names are resolved, addresses decided and connected to as they are
//! for sessions.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use model::{
    egress::{Host, Policy, Refused},
    gateway::GatewayLimits,
    webhook::Receivers,
};
use tokio::net::TcpStream;

use crate::{
    outside::{Outside, TRIED_ADDRESSES, permitted},
    own,
};

/// See the module.
#[derive(Debug)]
pub struct Way {
    outside: Outside,
    receivers: Receivers,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Blocked {
    /// None of its addresses may be connected to.
    #[error("{}", .0.detail)]
    Refused(Refused),
    /// Its name has no address.
    #[error("{}", .0.detail)]
    Unresolved(Refused),
    /// None of its addresses answers.
    #[error("{address} does not answer")]
    Failed {
        /// The last one that was tried.
        address: IpAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What this host's own addresses are could not be found out.
    #[error("this host's own addresses are not known")]
    Own(#[source] io::Error),
}

impl Way {
    /// To these receivers, with this resolver or the host's. Each step may take as long as `patience`.
    pub fn new(resolver: Option<SocketAddr>, receivers: Receivers, patience: Duration) -> io::Result<Self> {
        let connect_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let limits = GatewayLimits { connect_ms, ..GatewayLimits::default() };
        // The policy of sessions has no part in this: who may be told is decided by `receivers`.
        Ok(Self { outside: Outside::asking(resolver, Policy::default(), limits)?, receivers })
    }

    /// Connects to one of the host's addresses that was decided; there is no second look at its name.
    pub async fn connect(&self, host: &Host, port: u16) -> Result<TcpStream, Blocked> {
        let found = self.outside.addresses(host).await.map_err(Blocked::Unresolved)?;
        // Looked up each time: an address that this host got since the start is its own as well.
        let receivers = self.receivers.with_own(own::addresses().map_err(Blocked::Own)?);
        let allowed = permitted(found, |address| receivers.address(*address, port, host)).map_err(Blocked::Refused)?;
        let mut failed = Blocked::Own(io::ErrorKind::AddrNotAvailable.into());
        for address in allowed.into_iter().take(TRIED_ADDRESSES) {
            match self.outside.connect(&[address], port).await {
                Ok(stream) => return Ok(stream),
                Err(source) => failed = Blocked::Failed { address, source },
            }
        }
        Err(failed)
    }
}
