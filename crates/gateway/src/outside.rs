//! The world outside: names are resolved here, addresses decided, connections made. Nothing else in this process opens
//! a connection.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};
use model::{
    egress::{Host, Policy, Reason, Refused, canonical},
    gateway::GatewayLimits,
};
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};

/// Addresses of one name that are tried.
pub(crate) const TRIED_ADDRESSES: usize = 4;
/// Names of a session that are looked up at once: the host's resolver is there for everybody.
const RESOLVED_AT_ONCE: usize = 64;
/// Addresses of one name that are looked at; a hostile server may send thousands.
const MAX_ADDRESSES: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) policy: Policy,
    pub(crate) limits: GatewayLimits,
    resolver: TokioResolver,
    resolving: Semaphore,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum Unreached {
    /// The policy, or the name.
    Refused(Refused),
    /// The network.
    Failed(io::Error),
}

impl Outside {
    /// With this resolver, or that of the host.
    pub(crate) fn asking(resolver: Option<SocketAddr>, policy: Policy, limits: GatewayLimits) -> io::Result<Self> {
        let builder = match resolver {
            None => TokioResolver::builder_tokio().map_err(|error| {
                io::Error::other(format!("/etc/resolv.conf names no resolver ({error}); name one with egress_resolver"))
            })?,
            Some(address) => {
                let on_port = |mut connection: ConnectionConfig| {
                    connection.port = address.port();
                    connection
                };
                let connections = vec![on_port(ConnectionConfig::udp()), on_port(ConnectionConfig::tcp())];
                let server = NameServerConfig::new(address.ip(), true, connections);
                let config = ResolverConfig::from_name_servers(vec![server]);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let resolver = builder.build().map_err(io::Error::other)?;
        Ok(Self { policy, limits, resolver, resolving: Semaphore::new(RESOLVED_AT_ONCE) })
    }

    /// The addresses of a host, whatever the policy says of them.
    pub(crate) async fn addresses(&self, host: &Host) -> Result<Vec<IpAddr>, Refused> {
        match host {
            Host::Address(address) => Ok(vec![canonical(*address)]),
            Host::Name(name) => self.resolve(name).await,
        }
    }

    /// The addresses of a name, whatever the policy says of them.
    pub(crate) async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Refused> {
        let patience = Duration::from_millis(self.limits.connect_ms);
        let unresolved = |detail: String| Refused::flat(Reason::NotResolved, detail);
        // With the final dot: the host's search domains are no business of the workload's.
        let look = async {
            let _turn = self.resolving.acquire().await;
            self.resolver.lookup_ip(format!("{name}.")).await
        };
        let found = timeout(patience, look)
            .await
            .map_err(|_| unresolved(format!("{name} was not resolved in time")))?
            .map_err(|_| unresolved(format!("{name} cannot be resolved")))?;
        let mut addresses: Vec<IpAddr> = found.iter().map(canonical).take(MAX_ADDRESSES).collect();
        // IPv4 first: a host without IPv6 would lose an attempt on each connection.
        addresses.sort_by_key(IpAddr::is_ipv6);
        if addresses.is_empty() { Err(unresolved(format!("{name} has no address"))) } else { Ok(addresses) }
    }

    /// Decides a host and a port as the session's list says, and gives the addresses that may be connected to.
    pub(crate) async fn decide(&self, host: &Host, port: u16) -> Result<Vec<IpAddr>, Refused> {
        match host {
            Host::Address(address) => self.policy.address(*address, port, None).map(|()| vec![canonical(*address)]),
            Host::Name(name) => {
                self.policy.name(name, Some(port))?;
                let resolved = self.resolve(name).await?;
                permitted(resolved, |address| self.policy.address(*address, port, Some(name)))
            }
        }
    }

    /// Connects to the first of these addresses that answers. They were decided.
    pub(crate) async fn connect(&self, addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
        let patience = Duration::from_millis(self.limits.connect_ms);
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses.iter().take(TRIED_ADDRESSES) {
            match timeout(patience, TcpStream::connect((*address, port))).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => failed = error,
                Err(_) => failed = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(failed)
    }
}

/// Those of these addresses, or names, that `decide` allows; why not, if it allows none of them.
pub(crate) fn permitted<T>(things: Vec<T>, decide: impl Fn(&T) -> Result<(), Refused>) -> Result<Vec<T>, Refused> {
    let mut refused = None;
    let allowed: Vec<T> = things
        .into_iter()
        .filter(|thing| match decide(thing) {
            Ok(()) => true,
            Err(why) => {
                refused.get_or_insert(why);
                false
            }
        })
        .collect();
    match refused {
        Some(refused) if allowed.is_empty() => Err(refused),
        Some(_) | None => Ok(allowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_resolved_before_its_name_is_allowed() {
        let outside = Outside::asking(None, Policy::default(), GatewayLimits::default()).unwrap();
        let host = Host::Name("example.org".to_owned());
        assert_eq!(outside.decide(&host, 443).await.unwrap_err().reason, Reason::NotAllowed);
    }
}
