//! Catching what speaks to no proxy: every address gets a route inside this sandbox, and its kernel turns TCP connections
//! around to a port of ours, and DNS queries to our stub.
//!
//! All of it is state of the sandbox's own kernel, set up with privileges that no workload has. The rules:
//!
//! ```text
//! table nat, OUTPUT    IPv4                                IPv6
//!   to the sandbox     127.0.0.0/8: accept                 ::1: accept
//!   TCP                redirect to the capture port        redirect to the capture port
//!   UDP                port 53: redirect to the DNS stub   redirect to a port where nobody is, which refuses it
//! ```
//!
//! IPv4 addresses are local as well, so that a datagram to one of them comes by where [`super::attempts`] sees it. The
//! sandbox's kernel cannot have whole networks of IPv6 as its own; there it is seen after it was redirected.

mod table;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::{
    fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, sockopt},
};

use self::table::{FRESH_ENTRIES, table};

/// Addresses and prefix lengths for `lo` that cover all of IPv4 between them. The addresses themselves mean nothing.
const EVERYWHERE: [(Ipv4Addr, u8); 2] = [(Ipv4Addr::new(10, 99, 0, 1), 1), (Ipv4Addr::new(200, 0, 0, 1), 1)];
/// The index of `lo`, the only interface.
const LOOPBACK_INDEX: u32 = 1;
/// Where datagrams over IPv6 end: the port of `discard`, which no workload may listen on.
pub(super) const NOWHERE_PORT: u16 = 9;

/// The two kinds of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    fn domain(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::INET,
            Self::V6 => AddressFamily::INET6,
        }
    }
}

/// Makes every IPv4 address local, and gives every IPv6 address a route.
pub(super) fn add_routes() -> Result<(), Errno> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    EVERYWHERE.into_iter().try_for_each(|(address, prefix)| ask(socket.as_fd(), &new_address(address, prefix)))?;
    ask(socket.as_fd(), &new_route())
}

/// Has the kernel do it. What is there already is well.
fn ask(socket: BorrowedFd<'_>, request: &[u8]) -> Result<(), Errno> {
    rustix::net::send(socket, request, SendFlags::empty())?;
    let mut answer = [0; 512];
    let (_, len) = rustix::net::recv(socket, &mut answer, RecvFlags::empty())?;
    // An nlmsghdr of type NLMSG_ERROR, and the error number as the kernel has it: negative, 0 when there is none.
    let Some(code) = answer[..len].get(16..20) else { return Err(Errno::PROTO) };
    match i32::from_ne_bytes(code.try_into().expect("four bytes")) {
        0 => Ok(()),
        code if code == -libc::EEXIST => Ok(()),
        code => Err(Errno::from_raw_os_error(code.saturating_neg())),
    }
}

/// The netlink request for an address of `lo`: ifaddrmsg, IFA_LOCAL and IFA_ADDRESS.
fn new_address(address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    let mut body = vec![u8::try_from(libc::AF_INET).expect("a small number"), prefix, 0, 0];
    body.extend_from_slice(&LOOPBACK_INDEX.to_ne_bytes());
    for attribute in [libc::IFA_LOCAL, libc::IFA_ADDRESS] {
        body.extend(attribute_of(attribute, &address.octets()));
    }
    request(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &body)
}

/// The netlink request for a route to all of IPv6 by way of `lo`: rtmsg, RTA_DST and RTA_OIF.
fn new_route() -> Vec<u8> {
    let family = u8::try_from(libc::AF_INET6).expect("a small number");
    let (any, static_) = (0, libc::RTPROT_STATIC);
    // The family, prefix lengths of destination and source, type of service; table, origin, scope, type; flags.
    let mut body = vec![family, any, any, 0, libc::RT_TABLE_MAIN, static_, libc::RT_SCOPE_LINK, libc::RTN_UNICAST];
    body.extend_from_slice(&0_u32.to_ne_bytes());
    body.extend(attribute_of(libc::RTA_DST, &Ipv6Addr::UNSPECIFIED.octets()));
    body.extend(attribute_of(libc::RTA_OIF, &LOOPBACK_INDEX.to_ne_bytes()));
    request(libc::RTM_NEWROUTE, libc::NLM_F_CREATE, &body)
}

/// `struct rtattr`, with a value that needs no padding.
fn attribute_of(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).expect("a short value");
    [&len.to_ne_bytes(), &kind.to_ne_bytes(), value].concat()
}

/// `struct nlmsghdr` and what follows it.
fn request(kind: u16, flags: libc::c_int, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(16 + body.len()).expect("a short message");
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags).expect("sixteen bits");
    let (number, sender) = (1_u32, 0_u32);
    [
        &len.to_ne_bytes()[..],
        &kind.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &number.to_ne_bytes(),
        &sender.to_ne_bytes(),
        body,
    ]
    .concat()
}

/// Puts the rules into force. `port` of 127.0.0.1 and ::1 gets the connections.
pub(super) fn redirect(port: u16) -> Result<(), Errno> {
    Family::ALL.into_iter().try_for_each(|family| {
        let socket = raw_socket(family, ipproto::RAW)?;
        // What the kernel hands back of the table that there was: five entries, a packet and a byte count each.
        let mut counters = [0_u64; 2 * FRESH_ENTRIES];
        let table = table(family, port, counters.as_mut_ptr() as usize);
        replace(socket.as_fd(), family, &table)
    })
}

/// Where a caught connection was going.
pub(super) fn destination(client: BorrowedFd<'_>, family: Family) -> Option<SocketAddr> {
    let to = match family {
        Family::V4 => sockopt::ip_original_dst(client).map(SocketAddr::from),
        Family::V6 => sockopt::ipv6_original_dst(client).map(SocketAddr::from),
    };
    // What came to the port by itself has a loopback address here.
    to.ok().filter(|to| !to.ip().is_loopback())
}

/// A socket that sees every datagram of a protocol that this kernel delivers.
pub(super) fn raw_socket(family: Family, protocol: rustix::net::Protocol) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family.domain(), SocketType::RAW, flags, Some(protocol))
}

#[expect(unsafe_code, reason = "rustix does not know iptables")]
fn replace(socket: BorrowedFd<'_>, family: Family, table: &[u8]) -> Result<(), Errno> {
    // The same number for both.
    const IPT_SO_SET_REPLACE: libc::c_int = 64;
    let level = match family {
        Family::V4 => libc::IPPROTO_IP,
        Family::V6 => libc::IPPROTO_IPV6,
    };
    let len = libc::socklen_t::try_from(table.len()).expect("a few thousand bytes");
    // SAFETY: the kernel reads `len` bytes of `table`, and writes to the counters that it points to, which the caller
    // keeps and which have room for the entries that it says they have room for.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, IPT_SO_SET_REPLACE, table.as_ptr().cast(), len) };
    if done == 0 { Ok(()) } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_asked_for_with_its_prefix() {
        let message = new_address(Ipv4Addr::new(10, 99, 0, 1), 1);
        assert_eq!(message.len(), 40);
        assert_eq!(message[..4], 40_u32.to_ne_bytes());
        assert_eq!(message[17], 1);
        assert_eq!(message[28..32], [10, 99, 0, 1]);
    }

    #[test]
    fn the_route_is_to_everywhere_and_by_loopback() {
        let message = new_route();
        assert_eq!(message.len(), 16 + 12 + 20 + 8);
        assert_eq!(message[..4], 56_u32.to_ne_bytes());
        assert_eq!((message[16], message[17]), (10, 0));
        assert_eq!(message[28..32], [20_u16.to_ne_bytes(), 1_u16.to_ne_bytes()].concat());
        assert_eq!(message[32..48], [0; 16]);
        assert_eq!(message[52..56], LOOPBACK_INDEX.to_ne_bytes());
    }
}
