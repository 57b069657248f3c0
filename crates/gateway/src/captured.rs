//! Connections that the sandbox's kernel caught on their way to an address, and attempts that cannot be carried.

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
};

use model::egress::{Host, Reason, Refused, canonical};
use protocol::egress::Datagram;

use crate::{
    first::{Client, First, SILENCE},
    http_proxy::{self, Mode},
    outside::permitted,
    relay::{Screen, relay},
    session::{By, Session, destination},
    tunnel::{Tunnel, Way},
};

/// Serves one to its end.
pub(crate) async fn serve(session: &Arc<Session>, mut client: Client, to: SocketAddr) {
    let (address, port) = (canonical(to.ip()), to.port());
    let host = Host::Address(address);
    let attempted = format!("connect tcp {}", destination(&host, port));
    let Err(by_address) = session.outside.policy.address(address, port, None) else {
        if let Ok(upstream) = session.reach(&host, port, By::Tcp, &attempted).await {
            relay(session, client, upstream, Screen::Open, &attempted).await;
        }
        return;
    };
    let refused = match named(session, SocketAddr::new(address, port)) {
        // That it has no name says less than what the address itself is.
        Ok(names) if names.is_empty() => by_address,
        Ok(names) => {
            let way = Way::Caught(address);
            return Tunnel { session: session.clone(), client, names, port, way, attempted }.run().await;
        }
        Err(refused) => refused,
    };
    session.teller.denied(&attempted, &refused).await;
    // A client that speaks HTTP can be told why; it speaks first.
    if matches!(client.first(SILENCE).await, Ok(First::Http)) {
        http_proxy::serve(session, client, Mode::Refusing(refused)).await;
    }
}

/// The names that allow a connection to an address, none if it has no name; why not, if it has names that do not.
pub(crate) fn named(session: &Session, to: SocketAddr) -> Result<Vec<String>, Refused> {
    let policy = &session.outside.policy;
    let pinned = session.pins().names(to.ip());
    permitted(pinned, |name| {
        policy.name(name, Some(to.port())).and_then(|()| policy.address(to.ip(), to.port(), Some(name)))
    })
}

/// Tells what the runner says was tried.
pub(crate) async fn attempt(session: &Session, protocol: Datagram, to: SocketAddr) {
    let host = Host::Address(canonical(to.ip()));
    let attempted = match protocol {
        // Over IPv6 the sandbox's kernel does not tell where to.
        Datagram::Udp if to.ip() == Ipv6Addr::UNSPECIFIED => "send udp over IPv6".to_owned(),
        Datagram::Udp => format!("send udp {}", destination(&host, to.port())),
        Datagram::Icmp => format!("ping {host}"),
    };
    let detail = format!("{} is not carried out of a sandbox", protocol.as_str().to_uppercase());
    session.teller.claimed(&attempted, &Refused::flat(Reason::NotCarried, detail)).await;
}
