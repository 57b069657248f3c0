//! Where connections come in.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    os::fd::AsFd as _,
};

use protocol::egress::{BASE_URL_PORT, DNS, DNS_PORT, HTTP_PROXY_PORT, INSIDE, Opening, SOCKS_PORT};
use rustix::{
    fd::{BorrowedFd, OwnedFd},
    io::Errno,
    net::{SocketFlags, sockopt},
};

use super::capture::{self, Family};

/// Connections that the kernel keeps until they are taken.
const BACKLOG: i32 = 1024;

/// What comes to a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    /// Always the same.
    Known(Opening),
    /// What the kernel has caught.
    Caught(Family),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Door {
    listener: TcpListener,
    purpose: For,
}

/// What came in.
#[derive(Debug)]
pub(super) enum Came {
    /// A client, and what for.
    Client(OwnedFd, Opening),
    /// A client that came nowhere in particular.
    Stray(OwnedFd),
}

impl Door {
    /// All of them, and the port of the one for caught connections.
    pub(super) fn open_all() -> io::Result<(Vec<Self>, u16)> {
        let fixed = [
            (INSIDE, HTTP_PROXY_PORT, Opening::Http),
            (INSIDE, BASE_URL_PORT, Opening::Http),
            (INSIDE, SOCKS_PORT, Opening::Socks),
            (DNS, DNS_PORT, Opening::Dns),
        ];
        let fixed =
            fixed.into_iter().map(|(address, port, opening)| Self::open(address.into(), port, For::Known(opening)));
        let mut doors = fixed.collect::<io::Result<Vec<_>>>()?;
        // Any port: what the workload would like to have is not known.
        let caught = Self::open(Ipv4Addr::LOCALHOST.into(), 0, For::Caught(Family::V4))?;
        let port = caught.listener.local_addr()?.port();
        doors.push(caught);
        doors.push(Self::open(Ipv6Addr::LOCALHOST.into(), port, For::Caught(Family::V6))?);
        Ok((doors, port))
    }

    fn open(address: IpAddr, port: u16, purpose: For) -> io::Result<Self> {
        let listener = TcpListener::bind((address, port))?;
        listener.set_nonblocking(true)?;
        rustix::net::listen(&listener, BACKLOG)?;
        Ok(Self { listener, purpose })
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Who has come, if anybody has.
    pub(super) fn accept(&self) -> Option<Came> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let client = loop {
            match rustix::net::accept_with(&self.listener, flags) {
                Ok(client) => break client,
                // A client that has already gone is as if it had never come.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(_) => return None,
            }
        };
        // Without it small messages wait for one another; nothing is lost but time.
        let _ = sockopt::set_tcp_nodelay(&client, true);
        let opening = match self.purpose {
            For::Known(opening) => Some(opening),
            For::Caught(family) => capture::destination(client.as_fd(), family).map(|to| match to.port() {
                DNS_PORT => Opening::Dns,
                _ => Opening::Captured(to),
            }),
        };
        Some(match opening {
            Some(opening) => Came::Client(client, opening),
            None => Came::Stray(client),
        })
    }
}
