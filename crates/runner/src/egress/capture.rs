//! Catching what speaks to no proxy: every IPv4 address is made one of this sandbox's own, and its kernel turns TCP
//! connections to them around to a port of ours, and DNS queries to our stub.
//!
//! All of it is state of the sandbox's own kernel, set up with privileges that no workload has. The rules:
//!
//! ```text
//! table nat, OUTPUT:  to 127.0.0.0/8  accept
//!                     TCP             redirect to the capture port
//!                     UDP to port 53  redirect to the DNS stub
//! ```
//!
//! Without a rule IPv6 has no route at all.

use std::net::{Ipv4Addr, SocketAddrV4};

use protocol::egress::DNS_PORT;
use rustix::{
    fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, sockopt},
};

/// Addresses and prefix lengths for `lo` that cover all of IPv4 between them. The addresses themselves mean nothing.
const EVERYWHERE: [(Ipv4Addr, u8); 2] = [(Ipv4Addr::new(10, 99, 0, 1), 1), (Ipv4Addr::new(200, 0, 0, 1), 1)];
/// The index of `lo`, the only interface.
const LOOPBACK_INDEX: u32 = 1;

/// Makes every IPv4 address local.
pub(super) fn add_addresses() -> Result<(), Errno> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    EVERYWHERE.into_iter().try_for_each(|(address, prefix)| add_address(socket.as_fd(), address, prefix))
}

fn add_address(socket: BorrowedFd<'_>, address: Ipv4Addr, prefix: u8) -> Result<(), Errno> {
    rustix::net::send(socket, &new_address(address, prefix), SendFlags::empty())?;
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

/// The netlink request for it: nlmsghdr, ifaddrmsg, IFA_LOCAL and IFA_ADDRESS.
fn new_address(address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    const FLAGS: libc::c_int = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let mut body = vec![u8::try_from(libc::AF_INET).expect("a small number"), prefix, 0, 0];
    body.extend_from_slice(&LOOPBACK_INDEX.to_ne_bytes());
    for attribute in [libc::IFA_LOCAL, libc::IFA_ADDRESS] {
        body.extend_from_slice(&8_u16.to_ne_bytes());
        body.extend_from_slice(&attribute.to_ne_bytes());
        body.extend_from_slice(&address.octets());
    }
    let len = u32::try_from(16 + body.len()).expect("a short message");
    let mut message = len.to_ne_bytes().to_vec();
    message.extend_from_slice(&libc::RTM_NEWADDR.to_ne_bytes());
    message.extend_from_slice(&u16::try_from(FLAGS).expect("sixteen bits").to_ne_bytes());
    message.extend_from_slice(&[1_u32.to_ne_bytes(), 0_u32.to_ne_bytes()].concat());
    message.extend_from_slice(&body);
    message
}

/// Puts the rules into force. `port` of 127.0.0.1 gets the connections.
pub(super) fn redirect(port: u16) -> Result<(), Errno> {
    let socket = raw_socket(ipproto::RAW)?;
    // What the kernel hands back of the table that there was: five entries, a packet and a byte count each.
    let mut counters = [0_u64; 2 * FRESH_ENTRIES];
    let table = table(port, counters.as_mut_ptr() as usize);
    replace(socket.as_fd(), &table)
}

/// Where a caught connection was going.
pub(super) fn destination(client: BorrowedFd<'_>) -> Option<SocketAddrV4> {
    // What came to the port by itself has a loopback address here.
    sockopt::ip_original_dst(client).ok().filter(|to| !to.ip().is_loopback())
}

/// A socket that sees every datagram of a protocol that this kernel delivers.
pub(super) fn raw_socket(protocol: rustix::net::Protocol) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(protocol))
}

/// Entries of a nat table without rules: four chains and the end.
const FRESH_ENTRIES: usize = 5;
/// `struct ipt_entry` without what follows it.
const ENTRY: usize = 112;
/// Verdicts are kept as -verdict - 1, and NF_ACCEPT is 1.
const ACCEPT: i32 = -2;
const NO_CHAIN: u32 = u32::MAX;

/// `struct ipt_replace` for the nat table, entries included.
fn table(port: u16, counters: usize) -> Vec<u8> {
    let entries = [
        // PREROUTING, INPUT
        entry(None, 0, &[], &verdict(ACCEPT)),
        entry(None, 0, &[], &verdict(ACCEPT)),
        // OUTPUT
        entry(Some((Ipv4Addr::new(127, 0, 0, 0), Ipv4Addr::new(255, 0, 0, 0))), 0, &[], &verdict(ACCEPT)),
        entry(None, libc::IPPROTO_TCP, &[], &to_port(port)),
        entry(None, libc::IPPROTO_UDP, &udp_to(DNS_PORT), &to_port(DNS_PORT)),
        entry(None, 0, &[], &verdict(ACCEPT)),
        // POSTROUTING
        entry(None, 0, &[], &verdict(ACCEPT)),
        entry(None, 0, &[], &end()),
    ];
    let mut at = 0;
    let offsets: Vec<u32> = entries
        .iter()
        .map(|entry| {
            let offset = at;
            at += u32::try_from(entry.len()).expect("a few hundred bytes");
            offset
        })
        .collect();
    // By hook: prerouting, input, forward, output, postrouting. First entry of each chain, and its policy.
    let first = [offsets[0], offsets[1], NO_CHAIN, offsets[2], offsets[6]];
    let policy = [offsets[0], offsets[1], NO_CHAIN, offsets[5], offsets[6]];
    let mut table = name::<32>(b"nat");
    let valid_hooks = 0b11011_u32;
    let count = u32::try_from(entries.len()).expect("a few");
    for number in [valid_hooks, count, at].iter().chain(&first).chain(&policy) {
        table.extend_from_slice(&number.to_ne_bytes());
    }
    table.extend_from_slice(&u32::try_from(FRESH_ENTRIES).expect("a few").to_ne_bytes());
    table.extend_from_slice(&counters.to_ne_bytes());
    table.extend(entries.into_iter().flatten());
    table
}

/// `struct ipt_entry` with its matches and its target.
fn entry(to: Option<(Ipv4Addr, Ipv4Addr)>, protocol: libc::c_int, matches: &[u8], target: &[u8]) -> Vec<u8> {
    let (address, mask) = to.unwrap_or((Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED));
    let none = [0; 4];
    // struct ipt_ip: source, destination, their masks, the names of two interfaces and their masks, the protocol, flags.
    let mut entry = [none, address.octets(), none, mask.octets()].concat();
    entry.resize(entry.len() + 64, 0);
    entry.extend_from_slice(&u16::try_from(protocol).expect("a protocol number").to_ne_bytes());
    // Flags, what they invert, and which parts of a packet this is about.
    entry.resize(entry.len() + 6, 0);
    let target_at = ENTRY + matches.len();
    for offset in [target_at, target_at + target.len()] {
        entry.extend_from_slice(&u16::try_from(offset).expect("a few hundred bytes").to_ne_bytes());
    }
    // Where the kernel came from, and its counters.
    entry.resize(ENTRY, 0);
    entry.extend_from_slice(matches);
    entry.extend_from_slice(target);
    entry
}

/// `struct xt_entry_target` or `xt_entry_match`, padded as the kernel aligns it.
fn extension(kind: &[u8], body: &[u8]) -> Vec<u8> {
    let len = (32 + body.len()).next_multiple_of(8);
    let mut extension = u16::try_from(len).expect("a few bytes").to_ne_bytes().to_vec();
    extension.extend(name::<30>(kind));
    extension.extend_from_slice(body);
    extension.resize(len, 0);
    extension
}

fn verdict(verdict: i32) -> Vec<u8> {
    extension(b"", &verdict.to_ne_bytes())
}

/// `struct nf_nat_ipv4_multi_range_compat` with one range of one port.
fn to_port(port: u16) -> Vec<u8> {
    const PORT_GIVEN: u32 = 2;
    let mut body = [1, PORT_GIVEN, 0, 0].map(u32::to_ne_bytes).concat();
    body.extend_from_slice(&[port.to_be_bytes(), port.to_be_bytes()].concat());
    extension(b"REDIRECT", &body)
}

/// `struct xt_udp`: any source port, this destination port.
fn udp_to(port: u16) -> Vec<u8> {
    let body = [0, u16::MAX, port, port].map(u16::to_ne_bytes).concat();
    extension(b"udp", &[body, vec![0, 0]].concat())
}

/// What ends a table.
fn end() -> Vec<u8> {
    extension(b"ERROR", &name::<30>(b"ERROR"))
}

fn name<const LEN: usize>(text: &[u8]) -> Vec<u8> {
    let mut name = text.to_vec();
    name.resize(LEN, 0);
    name
}

#[expect(unsafe_code, reason = "rustix does not know iptables")]
fn replace(socket: BorrowedFd<'_>, table: &[u8]) -> Result<(), Errno> {
    const IPT_SO_SET_REPLACE: libc::c_int = 64;
    let len = libc::socklen_t::try_from(table.len()).expect("a few thousand bytes");
    // SAFETY: the kernel reads `len` bytes of `table`, and writes to the counters that it points to, which the caller
    // keeps and which have room for the entries that it says they have room for.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, IPT_SO_SET_REPLACE, table.as_ptr().cast(), len)
    };
    if done == 0 { Ok(()) } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_sizes_of_the_kernels_structures() {
        assert_eq!(verdict(ACCEPT).len(), 40);
        assert_eq!(to_port(1).len(), 56);
        assert_eq!(udp_to(53).len(), 48);
        assert_eq!(end().len(), 64);
        assert_eq!(entry(None, 0, &[], &verdict(ACCEPT)).len(), ENTRY + 40);
        let table = table(4000, 0x1234);
        assert_eq!(&table[..4], b"nat\0");
        let number = |at: usize| u32::from_ne_bytes(table[at..at + 4].try_into().expect("four"));
        assert_eq!((number(36), usize::try_from(number(40)).expect("fits")), (8, table.len() - 96));
        assert_eq!(u64::from_ne_bytes(table[88..96].try_into().expect("eight")), 0x1234);
        // The entry at the hook of OUTPUT is the one for loopback.
        let output = 96 + usize::try_from(number(44 + 12)).expect("fits");
        assert_eq!(&table[output + 4..output + 8], [127, 0, 0, 0]);
        assert_eq!(&table[output + 12..output + 16], [255, 0, 0, 0]);
    }

    #[test]
    fn an_address_is_asked_for_with_its_prefix() {
        let message = new_address(Ipv4Addr::new(10, 99, 0, 1), 1);
        assert_eq!(message.len(), 40);
        assert_eq!(message[..4], 40_u32.to_ne_bytes());
        assert_eq!(message[17], 1);
        assert_eq!(message[28..32], [10, 99, 0, 1]);
    }
}
