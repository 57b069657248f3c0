//! What the runner and the gateway say to one another.
//!
//! One socket leads from the runner to the gateway: the control socket, a `SOCK_STREAM` pair. The runner writes
//! [`WANT`] for each stream that it needs; the gateway answers with [`GRANTED`] and one descriptor of a fresh stream
//! (`SCM_RIGHTS`), or with [`REFUSED`]. A stream begins with one frame of this crate's codec, an [`Opening`]; after it
//! come the bytes of the connection as they are. Where a backend's pipe can carry several connections by itself
//! (vsock), a stream is a connection, and begins the same way.
//!
//! An opening is a claim: the gateway decides by it and never believes it in the workload's favour. It learns which
//! session speaks from the socket alone.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// On the control socket, runner to gateway: one more stream is wanted.
pub const WANT: u8 = b'+';
/// On the control socket, gateway to runner, together with a descriptor: here it is.
pub const GRANTED: u8 = b'+';
/// On the control socket, gateway to runner: there are too many streams; close the connection.
pub const REFUSED: u8 = b'-';

/// Largest encoded [`Opening`], prefix included. The gateway reads no more than this before it has one.
pub const MAX_OPENING_BYTES: usize = 64;

/// Where the runner listens inside the sandbox, but for DNS.
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
/// Where the runner answers DNS inside the sandbox: where C libraries ask when nothing tells them otherwise.
pub const DNS: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// The HTTP proxy's port on [`INSIDE`].
pub const HTTP_PROXY_PORT: u16 = 3128;
/// The SOCKS5 proxy's port on [`INSIDE`].
pub const SOCKS_PORT: u16 = 1080;
/// The port of the bindings' base URLs on [`INSIDE`]; the names below [`INTERNAL_DOMAIN`] resolve to it.
pub const BASE_URL_PORT: u16 = 80;
/// The port of [`DNS`], UDP and TCP.
pub const DNS_PORT: u16 = 53;
/// Bindings are `http://<name>.` this.
pub const INTERNAL_DOMAIN: &str = "enclave.internal";

/// Where a program finds the binding of this name.
pub fn base_url(binding: &str) -> String {
    format!("http://{binding}.{INTERNAL_DOMAIN}")
}

/// What stands before [`INTERNAL_DOMAIN`] and its dot in a host, if that is where it ends.
pub fn below_internal(host: &str) -> Option<&str> {
    host.strip_suffix(INTERNAL_DOMAIN)?.strip_suffix('.')
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Opening {
    /// HTTP/1.1 from a client: absolute-form and CONNECT as to a proxy, origin-form as to a binding's base URL.
    Http,
    /// SOCKS5 from a client.
    Socks,
    /// DNS messages, each behind its length in two bytes, as over TCP; answers go back the same way, in any order.
    Dns,
    /// A connection that the sandbox's kernel caught on its way to this address.
    Captured(SocketAddr),
    /// Something that cannot be carried was tried; nothing follows. Seen from inside, so only a hint.
    Attempt {
        /// What was tried.
        protocol: Datagram,
        /// Where to.
        destination: SocketAddr,
    },
}

/// What there is besides TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Datagram {
    /// UDP, but for DNS.
    Udp,
    /// ICMP; the port is 0.
    Icmp,
}

impl Datagram {
    /// The word in audit events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_opening_is_short() {
        let far = SocketAddr::from(([0xffff; 8], u16::MAX));
        let openings =
            [Opening::Socks, Opening::Captured(far), Opening::Attempt { protocol: Datagram::Icmp, destination: far }];
        for opening in openings {
            assert!(crate::encode(&opening).unwrap().len() <= MAX_OPENING_BYTES, "{opening:?}");
        }
    }
}
