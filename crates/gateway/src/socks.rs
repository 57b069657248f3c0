//! SOCKS5 (RFC 1928), as much of it as the way out has: no authentication, CONNECT.

use std::{io, sync::Arc, time::Duration};

use bytes::Buf as _;
use model::egress::{Host, Reason, Refused};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::{
    first::Client,
    http_proxy::{self, Mode, bound},
    outside::Unreached,
    session::{By, Session, destination},
    tunnel,
};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_METHOD: u8 = 0xff;

/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest greeting (255 methods); a request is about as long at most.
const MAX_MESSAGE_BYTES: usize = 300;

/// Replies of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Succeeded = 0,
    NotAllowed = 2,
    HostUnreachable = 4,
    ConnectionRefused = 5,
    TimedOut = 6,
    CommandNotSupported = 7,
    AddressNotSupported = 8,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Connect,
    Bind,
    Associate,
    Other(u8),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) command: Command,
    /// None when it is no host.
    pub(crate) host: Option<Host>,
    pub(crate) port: u16,
}

/// Why bytes are no message. Nothing can be answered to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    Version,
    AddressType,
}

/// The greeting: whether it offers to go without authentication, and its length; none when more has to come.
pub(crate) fn greeting(bytes: &[u8]) -> Result<Option<(bool, usize)>, Malformed> {
    match bytes {
        [] | [VERSION] => Ok(None),
        [VERSION, count, rest @ ..] => {
            let count = usize::from(*count);
            Ok(rest.get(..count).map(|methods| (methods.contains(&NO_AUTHENTICATION), 2 + count)))
        }
        [_, ..] => Err(Malformed::Version),
    }
}

/// The request, and its length; none when more has to come.
pub(crate) fn request(bytes: &[u8]) -> Result<Option<(Request, usize)>, Malformed> {
    let [version, command, _, kind, rest @ ..] = bytes else {
        return if bytes.first().is_none_or(|version| *version == VERSION) {
            Ok(None)
        } else {
            Err(Malformed::Version)
        };
    };
    if *version != VERSION {
        return Err(Malformed::Version);
    }
    let (host, length) = match kind {
        1 => match rest.first_chunk::<4>() {
            Some(v4) => (Some(Host::Address((*v4).into())), 4),
            None => return Ok(None),
        },
        4 => match rest.first_chunk::<16>() {
            Some(v6) => (Some(Host::Address(std::net::IpAddr::from(*v6).to_canonical())), 16),
            None => return Ok(None),
        },
        3 => {
            let Some((length, rest)) = rest.split_first() else { return Ok(None) };
            let Some(name) = rest.get(..usize::from(*length)) else { return Ok(None) };
            (std::str::from_utf8(name).ok().and_then(|name| name.parse().ok()), 1 + name.len())
        }
        _ => return Err(Malformed::AddressType),
    };
    let Some(port) = rest[length..].first_chunk::<2>() else { return Ok(None) };
    let command = match command {
        1 => Command::Connect,
        2 => Command::Bind,
        3 => Command::Associate,
        other => Command::Other(*other),
    };
    Ok(Some((Request { command, host, port: u16::from_be_bytes(*port) }, 4 + length + 2)))
}

/// Serves one client to its end.
pub(crate) async fn serve(session: &Arc<Session>, mut client: Client) {
    let Ok(Ok(Some(asked))) = timeout(PATIENCE, hear(&mut client)).await else { return };
    let shown = asked.host.as_ref().map_or_else(|| "?".to_owned(), |host| destination(host, asked.port));
    match asked.command {
        Command::Connect => {}
        Command::Bind | Command::Associate | Command::Other(_) => {
            let (what, detail) = match asked.command {
                Command::Associate => ("socks udp associate", "UDP is not carried out of a sandbox"),
                Command::Bind => ("socks bind", "nothing connects into a sandbox"),
                Command::Connect | Command::Other(_) => ("socks command", "SOCKS has no such command here"),
            };
            let refused = Refused::flat(Reason::NotCarried, detail);
            session.teller.denied(&format!("{what} {shown}"), &refused).await;
            let _ = reply(&mut client, Reply::CommandNotSupported).await;
            return;
        }
    }
    let attempted = format!("connect tcp {shown}");
    let Some(host) = asked.host else {
        let refused = Refused::flat(Reason::NotAHost, "what SOCKS was asked for is not a host name or an address");
        session.teller.denied(&attempted, &refused).await;
        let _ = reply(&mut client, Reply::NotAllowed).await;
        return;
    };
    if bound(&host).is_some() {
        // Bindings speak HTTP, whatever they are reached through.
        if reply(&mut client, Reply::Succeeded).await.is_ok() {
            http_proxy::serve(session, client, Mode::Proxy).await;
        }
        return;
    }
    let upstream = match session.reach(&host, asked.port, By::Socks, &attempted).await {
        Ok(upstream) => upstream,
        Err(unreached) => {
            let _ = reply(&mut client, why(&unreached)).await;
            return;
        }
    };
    if reply(&mut client, Reply::Succeeded).await.is_err() {
        return;
    }
    tunnel::carry(session, client, upstream, host, asked.port, attempted).await;
}

/// The handshake, up to the request.
async fn hear(client: &mut Client) -> io::Result<Option<Request>> {
    let (without, length) = loop {
        match greeting(&client.seen) {
            Ok(Some(greeting)) => break greeting,
            Ok(None) => more(client).await?,
            Err(_) => return Ok(None),
        }
    };
    client.seen.advance(length);
    if !without {
        client.io.write_all(&[VERSION, NO_METHOD]).await?;
        return Ok(None);
    }
    client.io.write_all(&[VERSION, NO_AUTHENTICATION]).await?;
    let (request, length) = loop {
        match request(&client.seen) {
            Ok(Some(request)) => break request,
            Ok(None) => more(client).await?,
            Err(Malformed::AddressType) => {
                reply(client, Reply::AddressNotSupported).await?;
                return Ok(None);
            }
            Err(Malformed::Version) => return Ok(None),
        }
    };
    client.seen.advance(length);
    Ok(Some(request))
}

async fn more(client: &mut Client) -> io::Result<()> {
    client.seen.reserve(MAX_MESSAGE_BYTES);
    match client.io.read_buf(&mut client.seen).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

async fn reply(client: &mut Client, reply: Reply) -> io::Result<()> {
    // Bound to nothing that the client could use.
    client.io.write_all(&[VERSION, reply as u8, 0, 1, 0, 0, 0, 0, 0, 0]).await
}

fn why(unreached: &Unreached) -> Reply {
    match unreached {
        Unreached::Refused(refused) if refused.reason == Reason::NotResolved => Reply::HostUnreachable,
        Unreached::Refused(_) => Reply::NotAllowed,
        Unreached::Failed(error) if error.kind() == io::ErrorKind::ConnectionRefused => Reply::ConnectionRefused,
        Unreached::Failed(error) if error.kind() == io::ErrorKind::TimedOut => Reply::TimedOut,
        Unreached::Failed(_) => Reply::HostUnreachable,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_read_however_they_are_cut() {
        let mut bytes = vec![5, 1, 0, 3, 12];
        bytes.extend_from_slice(b"Example.test\x01\xbbrest");
        for end in 0..bytes.len() - 4 {
            assert_eq!(request(&bytes[..end]), Ok(None), "{end}");
        }
        let expected = Request { command: Command::Connect, host: Some(Host::Name("example.test".into())), port: 443 };
        assert_eq!(request(&bytes), Ok(Some((expected, 19))));
    }

    #[test]
    fn an_address_may_come_as_a_name_or_as_ipv6() {
        let metadata = Some(Host::Address([169, 254, 169, 254].into()));
        let mut as_name = vec![5, 1, 0, 3, 10];
        as_name.extend_from_slice(b"0xa9fea9fe\0\x50");
        let mut as_v6 = vec![5, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        as_v6.extend_from_slice(&[169, 254, 169, 254, 0, 80]);
        for bytes in [as_name, as_v6] {
            assert_eq!(request(&bytes).unwrap().unwrap().0.host, metadata);
        }
    }

    #[test]
    fn what_is_no_socks5_is_refused() {
        assert_eq!(greeting(&[4, 1]), Err(Malformed::Version));
        assert_eq!(greeting(b"GET / HTTP/1.1"), Err(Malformed::Version));
        assert_eq!(request(&[5, 1, 0, 9]), Err(Malformed::AddressType));
        assert_eq!(request(&[5, 1, 0, 3, 1, b' ', 0, 1]).unwrap().unwrap().0.host, None);
        assert_eq!(greeting(&[5, 1, 2]), Ok(Some((false, 3))));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = greeting(&bytes);
            let mut bytes = bytes;
            bytes.insert(0, 5);
            let _ = request(&bytes);
            let _ = greeting(&bytes);
        }
    }
}
