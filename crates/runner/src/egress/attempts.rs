//! Datagrams that lead nowhere: seen on raw sockets, told to the gateway so that it can write them down.
//!
//! What is told is bounded: each destination once, so many a second, so many in all. What the kernel drops because this
//! process is busy is not told.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use protocol::egress::{DNS_PORT, Datagram};
use rustix::{
    fd::{BorrowedFd, OwnedFd},
    io::Errno,
    net::{RecvFlags, ipproto},
};

use super::capture::raw_socket;

/// Destinations told of in all.
const DISTINCT: usize = 256;
/// Destinations told of in one second.
const A_SECOND: u32 = 16;
/// Datagrams looked at before others get their turn.
const DATAGRAMS_A_TURN: usize = 64;
/// The part of a datagram that is looked at: the longest IP header, and the beginning of what follows it.
const LOOKED_AT: usize = 68;

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    udp: OwnedFd,
    icmp: OwnedFd,
    told: Told,
}

#[derive(Debug)]
struct Told {
    destinations: HashSet<(Datagram, SocketAddrV4)>,
    second: Instant,
    in_second: u32,
}

impl Told {
    /// Whether this is to be told, which counts as done.
    fn is_news(&mut self, datagram: Datagram, to: SocketAddrV4, now: Instant) -> bool {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            (self.second, self.in_second) = (now, 0);
        }
        if self.in_second == A_SECOND
            || self.destinations.len() == DISTINCT
            || !self.destinations.insert((datagram, to))
        {
            return false;
        }
        self.in_second += 1;
        true
    }
}

impl Watch {
    /// Opens its sockets, which takes privileges.
    pub(super) fn open() -> Result<Self, Errno> {
        let told = Told { destinations: HashSet::new(), second: Instant::now(), in_second: 0 };
        Ok(Self { udp: raw_socket(ipproto::UDP)?, icmp: raw_socket(ipproto::ICMP)?, told })
    }

    pub(super) fn socket(&self, of: Datagram) -> BorrowedFd<'_> {
        match of {
            Datagram::Udp => self.udp.as_fd(),
            Datagram::Icmp => self.icmp.as_fd(),
        }
    }

    /// Looks at what has come by, and hands over what is to be told. `is_own` knows datagrams of ours.
    pub(super) fn look(
        &mut self,
        of: Datagram,
        now: Instant,
        mut is_own: impl FnMut(SocketAddrV4) -> bool,
        mut tell: impl FnMut(SocketAddrV4),
    ) {
        let mut packet = [0; LOOKED_AT];
        for _ in 0..DATAGRAMS_A_TURN {
            let socket = self.socket(of);
            let len = match rustix::net::recv(socket, &mut packet, RecvFlags::DONTWAIT) {
                Ok((_, len)) => len,
                Err(Errno::INTR) => continue,
                Err(_) => return,
            };
            let Some(Seen { from_port, to }) = parse(of, &packet[..len]) else { continue };
            let answer = from_port == DNS_PORT && is_own(to);
            if !answer && !to.ip().is_loopback() && self.told.is_news(of, to, now) {
                tell(to);
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    from_port: u16,
    to: SocketAddrV4,
}

/// Reads an IPv4 packet as far as this is about it.
fn parse(of: Datagram, packet: &[u8]) -> Option<Seen> {
    const ECHO_REQUEST: u8 = 8;
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let to: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    let to = Ipv4Addr::from(to);
    let rest = packet.get(header.max(20)..)?;
    match of {
        Datagram::Udp => {
            let (from, rest) = rest.split_first_chunk::<2>()?;
            let (port, _) = rest.split_first_chunk::<2>()?;
            let [from_port, port] = [*from, *port].map(u16::from_be_bytes);
            Some(Seen { from_port, to: SocketAddrV4::new(to, port) })
        }
        // The others are this kernel's own answers.
        Datagram::Icmp => {
            (*rest.first()? == ECHO_REQUEST).then_some(Seen { from_port: 0, to: SocketAddrV4::new(to, 0) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(to: [u8; 4], rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45; 1];
        packet.resize(16, 0);
        [packet, to.to_vec(), rest.to_vec()].concat()
    }

    #[test]
    fn the_destination_is_read_and_nonsense_is_none() {
        let to = SocketAddrV4::new(Ipv4Addr::new(8, 8, 8, 8), 4433);
        let udp = packet([8, 8, 8, 8], &[0, 53, 0x11, 0x51, 0, 8, 0, 0]);
        assert_eq!(parse(Datagram::Udp, &udp), Some(Seen { from_port: 53, to }));
        let ping = |kind| parse(Datagram::Icmp, &packet([8, 8, 8, 8], &[kind, 0, 0, 0]));
        assert!(ping(8).is_some() && ping(0).is_none() && ping(3).is_none());
        for cut in 0..udp.len() - 4 {
            assert_eq!(parse(Datagram::Udp, &udp[..cut]), None, "{cut}");
        }
        assert_eq!(parse(Datagram::Udp, &[0xff; 30]), None);
    }

    #[test]
    fn each_destination_is_told_once_and_never_too_many() {
        let now = Instant::now();
        let mut told = Told { destinations: HashSet::new(), second: now, in_second: 0 };
        let to = |number: u16| SocketAddrV4::new(Ipv4Addr::new(8, 8, 8, 8), number);
        assert!(told.is_news(Datagram::Udp, to(1), now));
        assert!(!told.is_news(Datagram::Udp, to(1), now));
        assert!(told.is_news(Datagram::Icmp, to(1), now));
        let in_this_second = (2..1000).filter(|number| told.is_news(Datagram::Udp, to(*number), now)).count();
        assert_eq!(in_this_second + 2, A_SECOND as usize);
        let later = |number: u16| now + Duration::from_secs(u64::from(number));
        let ever = (1000..u16::MAX).filter(|number| told.is_news(Datagram::Udp, to(*number), later(*number))).count();
        assert_eq!(ever + A_SECOND as usize, DISTINCT);
    }
}
