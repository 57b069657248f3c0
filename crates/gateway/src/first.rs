//! What a client says first. A connection that is allowed by a name is relayed only when the client itself names it:
//! in TLS by its SNI, in HTTP by its Host. Otherwise an allowed name would be a ticket to whatever else lives behind
//! the same address.
//!
//! Encrypted ClientHello hides the name that is meant behind another one. It is treated as what can be seen: the outer
//! name has to be the one that was asked for. That grants no more than TLS does anyhow, in which a server of many
//! names may be asked for another one once everything is encrypted; the address stays the allowed name's own.

use std::{io, time::Duration};

use bytes::BytesMut;
use rustls::server::Acceptor;
use tokio::{
    io::AsyncReadExt as _,
    net::UnixStream,
    time::{Instant, timeout_at},
};

/// How long a client may be silent before it is taken for one that waits for the server to speak (SMTP, SSH, MySQL).
/// What connects to speak first does so at once; 300 ms are many times what the way out of the sandbox takes.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);
/// How long a client may take over its first message once it has begun.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// Longest first message. TLS bounds its own at 64 KiB.
const MAX_FIRST_BYTES: usize = 80 * 1024;
const READ_BYTES: usize = 8 * 1024;

/// The methods that begin a request. Anything else in capitals may be another protocol.
const METHODS: [&str; 17] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
];

/// A client's connection, with what was read of it and is still to be used.
pub(crate) struct Client {
    pub(crate) io: UnixStream,
    pub(crate) seen: BytesMut,
}

/// What came first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// A ClientHello, for this name if it names one.
    Tls(Option<String>),
    /// A request.
    Http,
    /// Something else, or an unfinished one of these.
    Other,
    /// Nothing, for [`SILENCE`].
    Silent,
    /// The end.
    Ended,
}

impl Client {
    pub(crate) fn new(io: UnixStream) -> Self {
        Self { io, seen: BytesMut::new() }
    }

    /// Waits for the first message, for as long as `silence` allows when nothing comes, and leaves it unread.
    pub(crate) async fn first(&mut self, silence: Duration) -> io::Result<First> {
        let mut look = Look::default();
        let mut deadline = Instant::now() + silence;
        loop {
            if let Some(first) = look.at(&self.seen) {
                return Ok(first);
            }
            if self.seen.len() >= MAX_FIRST_BYTES {
                return Ok(First::Other);
            }
            let was_empty = self.seen.is_empty();
            self.seen.reserve(READ_BYTES);
            match timeout_at(deadline, self.io.read_buf(&mut self.seen)).await {
                Ok(Ok(0)) if was_empty => return Ok(First::Ended),
                Ok(Ok(0)) => return Ok(First::Other),
                Ok(Ok(_)) if was_empty => deadline = Instant::now() + FIRST_PATIENCE,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) if was_empty => return Ok(First::Silent),
                Err(_) => return Ok(First::Other),
            }
        }
    }
}

/// Looks at growing bytes, each of them once.
#[derive(Default)]
pub(crate) struct Look {
    hello: Acceptor,
    fed: usize,
}

impl Look {
    /// What these bytes begin with; none when that takes more bytes.
    pub(crate) fn at(&mut self, seen: &[u8]) -> Option<First> {
        match seen {
            [] => None,
            // A handshake record of TLS, with a ClientHello in it.
            [0x16, rest @ ..] => {
                let begins = matches!(rest, [] | [3] | [3, _] | [3, _, _] | [3, _, _, _] | [3, _, _, _, 1, ..]);
                if begins { self.hello(seen) } else { Some(First::Other) }
            }
            _ => request(seen),
        }
    }

    fn hello(&mut self, seen: &[u8]) -> Option<First> {
        while let Some(mut more) = seen.get(self.fed..).filter(|more| !more.is_empty()) {
            match self.hello.read_tls(&mut more) {
                Ok(0) | Err(_) => return Some(First::Other),
                Ok(read) => self.fed += read,
            }
            match self.hello.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    return Some(First::Tls(accepted.client_hello().server_name().map(str::to_ascii_lowercase)));
                }
                Err(_) => return Some(First::Other),
            }
        }
        None
    }
}

/// Whether this begins a request.
fn request(seen: &[u8]) -> Option<First> {
    for method in METHODS {
        let method = method.as_bytes();
        if seen.len() <= method.len() {
            if method.starts_with(seen) {
                return None;
            }
        } else if seen.starts_with(method) && seen[method.len()] == b' ' {
            return Some(First::Http);
        }
    }
    Some(First::Other)
}

#[cfg(test)]
mod tests;
