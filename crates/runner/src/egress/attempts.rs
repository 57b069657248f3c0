//! Datagrams that lead nowhere: seen on raw sockets, told to the gateway so that it can write them down.
//!
//! What is told is bounded: each destination once, so many a second, so many in all. What the kernel drops because this
//! process is busy is not told.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use protocol::egress::{DNS_PORT, Datagram};
use rustix::{
    fd::{BorrowedFd, OwnedFd},
    io::Errno,
    net::{RecvFlags, ipproto},
};

use super::capture::{Family, NOWHERE_PORT, raw_socket};

/// Destinations told of in all.
const DISTINCT: usize = 256;
/// Destinations told of in one second.
const A_SECOND: u32 = 16;
/// Datagrams looked at before others get their turn.
const DATAGRAMS_A_TURN: usize = 64;
/// The part of a datagram that is looked at: the longest IP header, and the beginning of what follows it.
const LOOKED_AT: usize = 68;

/// Stands for an IPv6 address that is not known any more.
const SOMEWHERE: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// Where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// UDP over IPv4.
    Udp,
    /// ICMP over IPv4.
    Icmp,
    /// UDP over IPv6.
    Udp6,
}

impl Sight {
    pub(super) const ALL: [Self; 3] = [Self::Udp, Self::Icmp, Self::Udp6];

    fn datagram(self) -> Datagram {
        match self {
            Self::Udp | Self::Udp6 => Datagram::Udp,
            Self::Icmp => Datagram::Icmp,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    udp: OwnedFd,
    icmp: OwnedFd,
    udp6: OwnedFd,
    told: Told,
}

#[derive(Debug)]
struct Told {
    destinations: HashSet<(Datagram, SocketAddr)>,
    second: Instant,
    in_second: u32,
}

impl Told {
    /// Whether this is to be told, which counts as done.
    fn is_news(&mut self, datagram: Datagram, to: SocketAddr, now: Instant) -> bool {
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
        Ok(Self {
            udp: raw_socket(Family::V4, ipproto::UDP)?,
            icmp: raw_socket(Family::V4, ipproto::ICMP)?,
            udp6: raw_socket(Family::V6, ipproto::UDP)?,
            told,
        })
    }

    pub(super) fn socket(&self, seen: Sight) -> BorrowedFd<'_> {
        match seen {
            Sight::Udp => self.udp.as_fd(),
            Sight::Icmp => self.icmp.as_fd(),
            Sight::Udp6 => self.udp6.as_fd(),
        }
    }

    /// Looks at what has come by, and hands over what is to be told. `is_own` knows datagrams of ours.
    pub(super) fn look(
        &mut self,
        sight: Sight,
        now: Instant,
        mut is_own: impl FnMut(SocketAddr) -> bool,
        mut tell: impl FnMut(Datagram, SocketAddr),
    ) {
        let mut packet = [0; LOOKED_AT];
        for _ in 0..DATAGRAMS_A_TURN {
            let socket = self.socket(sight);
            let len = match rustix::net::recv(socket, &mut packet, RecvFlags::DONTWAIT) {
                Ok((_, len)) => len,
                Err(Errno::INTR) => continue,
                Err(_) => return,
            };
            let Some(Seen { from_port, to }) = parse(sight, &packet[..len]) else { continue };
            let answer = from_port == DNS_PORT && is_own(to);
            let of = sight.datagram();
            if !answer && !to.ip().is_loopback() && self.told.is_news(of, to, now) {
                tell(of, to);
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    from_port: u16,
    to: SocketAddr,
}

/// Reads a packet as far as this is about it.
fn parse(sight: Sight, packet: &[u8]) -> Option<Seen> {
    const ECHO_REQUEST: u8 = 8;
    match sight {
        Sight::Udp => {
            let (to, rest) = parse_ip(packet)?;
            let [from_port, port] = parse_ports(rest)?;
            Some(Seen { from_port, to: SocketAddr::new(to.into(), port) })
        }
        // The others are this kernel's own answers.
        Sight::Icmp => {
            let (to, rest) = parse_ip(packet)?;
            (*rest.first()? == ECHO_REQUEST).then_some(Seen { from_port: 0, to: SocketAddr::new(to.into(), 0) })
        }
        // It comes without its IPv6 header, and with the destination that it was given.
        Sight::Udp6 => {
            let [from_port, port] = parse_ports(packet)?;
            (port == NOWHERE_PORT).then_some(Seen { from_port, to: SOMEWHERE })
        }
    }
}

/// The destination of an IPv4 packet, and what follows its header.
fn parse_ip(packet: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let to: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    Some((to.into(), packet.get(header.max(20)..)?))
}

/// Where a UDP datagram comes from, and goes to.
fn parse_ports(datagram: &[u8]) -> Option<[u16; 2]> {
    let (from, rest) = datagram.split_first_chunk::<2>()?;
    let (to, _) = rest.split_first_chunk::<2>()?;
    Some([*from, *to].map(u16::from_be_bytes))
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
        let to = SocketAddr::from(([8, 8, 8, 8], 4433));
        let udp = packet([8, 8, 8, 8], &[0, 53, 0x11, 0x51, 0, 8, 0, 0]);
        assert_eq!(parse(Sight::Udp, &udp), Some(Seen { from_port: 53, to }));
        let ping = |kind| parse(Sight::Icmp, &packet([8, 8, 8, 8], &[kind, 0, 0, 0]));
        assert!(ping(8).is_some() && ping(0).is_none() && ping(3).is_none());
        for cut in 0..udp.len() - 4 {
            assert_eq!(parse(Sight::Udp, &udp[..cut]), None, "{cut}");
        }
        assert_eq!(parse(Sight::Udp, &[0xff; 30]), None);
        let udp6 = |port: u16| [[0x11, 0x51], port.to_be_bytes(), [0, 8], [0, 0]].concat();
        let seen = Seen { from_port: 0x1151, to: SOMEWHERE };
        assert_eq!(parse(Sight::Udp6, &udp6(NOWHERE_PORT)), Some(seen));
        assert_eq!(parse(Sight::Udp6, &udp6(53)), None);
        assert_eq!(parse(Sight::Udp6, &udp6(NOWHERE_PORT)[..3]), None);
    }

    #[test]
    fn each_destination_is_told_once_and_never_too_many() {
        let now = Instant::now();
        let mut told = Told { destinations: HashSet::new(), second: now, in_second: 0 };
        let to = |number: u16| SocketAddr::from(([8, 8, 8, 8], number));
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
