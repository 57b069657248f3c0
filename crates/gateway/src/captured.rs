//! Connections that the sandbox's kernel caught on their way to an address, and attempts that cannot be carried.

use std::{net::SocketAddr, sync::Arc};

use model::egress::{Host, Reason, Refused, canonical};
use protocol::egress::Datagram;

use crate::{
    first::{Client, First, SILENCE},
    http_proxy::{self, Mode},
    relay::{Screen, relay},
    session::{By, Session, destination},
    tunnel::{Tunnel, Way},
};

/// Serves one to its end.
pub(crate) async fn serve(session: &Arc<Session>, mut client: Client, to: SocketAddr) {
    let (address, port) = (canonical(to.ip()), to.port());
    let host = Host::Address(address);
    let attempted = format!("connect tcp {}", destination(&host, port));
    let policy = &session.outside.policy;
    let by_address = policy.address(address, port, None);
    if by_address.is_ok() {
        if let Ok(upstream) = session.reach(&host, port, By::Tcp, &attempted).await {
            relay(session, client, upstream, Screen::Open, &attempted).await;
        }
        return;
    }
    let refused = match named(session, SocketAddr::new(address, port)) {
        Ok(names) => {
            let way = Way::Caught(address);
            return Tunnel { session: session.clone(), client, names, port, way, attempted }.run().await;
        }
        // That no name allows it says less than what the address itself is.
        Err(Some(refused)) => refused,
        Err(None) => match by_address {
            Err(refused) => refused,
            Ok(()) => return,
        },
    };
    session.teller.denied(&attempted, &refused).await;
    // A client that speaks HTTP can be told why; it speaks first.
    if matches!(client.first(SILENCE).await, Ok(First::Http)) {
        http_proxy::serve(session, client, Mode::Refusing(refused)).await;
    }
}

/// The names that allow a connection to an address; why not, if there are names that do not.
pub(crate) fn named(session: &Session, to: SocketAddr) -> Result<Vec<String>, Option<Refused>> {
    let policy = &session.outside.policy;
    let mut why = None;
    let pinned = session.pins().names(to.ip());
    let allowed: Vec<String> = pinned
        .into_iter()
        .filter(|name| {
            let decided =
                policy.name(name, Some(to.port())).and_then(|()| policy.address(to.ip(), to.port(), Some(name)));
            decided.map_err(|refused| why.get_or_insert(refused)).is_ok()
        })
        .collect();
    if allowed.is_empty() { Err(why) } else { Ok(allowed) }
}

/// Tells what the runner says was tried.
pub(crate) async fn attempt(session: &Session, protocol: Datagram, to: SocketAddr) {
    let host = Host::Address(canonical(to.ip()));
    let attempted = match protocol {
        Datagram::Udp => format!("send udp {}", destination(&host, to.port())),
        Datagram::Icmp => format!("ping {host}"),
    };
    let detail = format!("{} is not carried out of a sandbox", protocol.as_str().to_uppercase());
    session.teller.claimed(&attempted, &Refused::flat(Reason::NotCarried, detail)).await;
}
