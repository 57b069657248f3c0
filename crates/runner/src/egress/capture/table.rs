//! A nat table in the form in which the kernel takes it whole, `struct ipt_replace` or `ip6t_replace`.

use std::net::{Ipv4Addr, Ipv6Addr};

use protocol::egress::DNS_PORT;

use super::{Family, NOWHERE_PORT};

/// Entries of a nat table without rules: four chains and the end.
pub(super) const FRESH_ENTRIES: usize = 5;
/// Verdicts are kept as -verdict - 1, and NF_ACCEPT is 1.
const ACCEPT: i32 = -2;
const NO_CHAIN: u32 = u32::MAX;

/// The table, entries included. `port` gets the connections.
pub(super) fn table(family: Family, port: u16, counters: usize) -> Vec<u8> {
    let all = |target: &[u8]| entry(family, None, 0, &[], target);
    let (inside, (udp, udp_port)) = match family {
        Family::V4 => {
            let net = (Ipv4Addr::new(127, 0, 0, 0).octets().to_vec(), Ipv4Addr::new(255, 0, 0, 0).octets().to_vec());
            (net, (udp_to(DNS_PORT), DNS_PORT))
        }
        Family::V6 => {
            let all_of_it = Ipv6Addr::from_bits(u128::MAX);
            ((Ipv6Addr::LOCALHOST.octets().to_vec(), all_of_it.octets().to_vec()), (Vec::new(), NOWHERE_PORT))
        }
    };
    let entries = [
        // PREROUTING, INPUT
        all(&verdict(ACCEPT)),
        all(&verdict(ACCEPT)),
        // OUTPUT
        entry(family, Some(inside), 0, &[], &verdict(ACCEPT)),
        entry(family, None, libc::IPPROTO_TCP, &[], &to_port(family, port)),
        entry(family, None, libc::IPPROTO_UDP, &udp, &to_port(family, udp_port)),
        all(&verdict(ACCEPT)),
        // POSTROUTING
        all(&verdict(ACCEPT)),
        all(&end()),
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

/// The size of `struct ipt_entry` or `ip6t_entry`, without what follows it.
const fn entry_size(family: Family) -> usize {
    match family {
        Family::V4 => 112,
        Family::V6 => 168,
    }
}

/// One of these, with its matches and its target. `to` is an address and its mask.
fn entry(
    family: Family,
    to: Option<(Vec<u8>, Vec<u8>)>,
    protocol: libc::c_int,
    matches: &[u8],
    target: &[u8],
) -> Vec<u8> {
    let none = match family {
        Family::V4 => vec![0; 4],
        Family::V6 => vec![0; 16],
    };
    let (address, mask) = to.unwrap_or_else(|| (none.clone(), none.clone()));
    // struct ipt_ip or ip6t_ip6: source, destination, their masks, the names of two interfaces and their masks, the
    // protocol, flags, what they invert; then which parts of a packet this is about.
    let mut entry = [none.clone(), address, none, mask].concat();
    entry.resize(entry.len() + 64, 0);
    entry.extend_from_slice(&u16::try_from(protocol).expect("a protocol number").to_ne_bytes());
    match family {
        Family::V4 => entry.resize(entry.len() + 6, 0),
        Family::V6 => {
            // Only there the protocol is to be looked at when a flag says so. In front of it is the type of service.
            const IP6T_F_PROTO: u8 = 1;
            entry.extend_from_slice(&[0, if protocol == 0 { 0 } else { IP6T_F_PROTO }]);
            entry.resize(entry.len() + 8, 0);
        }
    }
    let target_at = entry_size(family) + matches.len();
    for offset in [target_at, target_at + target.len()] {
        entry.extend_from_slice(&u16::try_from(offset).expect("a few hundred bytes").to_ne_bytes());
    }
    // Where the kernel came from, and its counters.
    entry.resize(entry_size(family), 0);
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

/// One range of one port: `struct nf_nat_ipv4_multi_range_compat`, or `nf_nat_range`, which has room for addresses.
fn to_port(family: Family, port: u16) -> Vec<u8> {
    const PORT_GIVEN: u32 = 2;
    let mut body = match family {
        Family::V4 => [1, PORT_GIVEN, 0, 0].map(u32::to_ne_bytes).concat(),
        Family::V6 => [PORT_GIVEN, 0, 0, 0, 0, 0, 0, 0, 0].map(u32::to_ne_bytes).concat(),
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_sizes_of_the_kernels_structures() {
        assert_eq!(verdict(ACCEPT).len(), 40);
        assert_eq!((to_port(Family::V4, 1).len(), to_port(Family::V6, 1).len()), (56, 72));
        assert_eq!(udp_to(53).len(), 48);
        assert_eq!(end().len(), 64);
        for (family, inside) in [
            (Family::V4, (vec![127, 0, 0, 0], vec![255, 0, 0, 0])),
            (Family::V6, (Ipv6Addr::LOCALHOST.octets().to_vec(), vec![255; 16])),
        ] {
            assert_eq!(entry(family, None, 0, &[], &verdict(ACCEPT)).len(), entry_size(family) + 40);
            let table = table(family, 4000, 0x1234);
            assert_eq!(&table[..4], b"nat\0");
            let number = |at: usize| u32::from_ne_bytes(table[at..at + 4].try_into().expect("four"));
            assert_eq!((number(36), usize::try_from(number(40)).expect("fits")), (8, table.len() - 96));
            assert_eq!(u64::from_ne_bytes(table[88..96].try_into().expect("eight")), 0x1234);
            // The entry at the hook of OUTPUT is the one for loopback.
            let output = 96 + usize::try_from(number(44 + 12)).expect("fits");
            let (address, mask) = inside;
            let long = address.len();
            assert_eq!(table[output + long..output + 2 * long], address);
            assert_eq!(table[output + 3 * long..output + 4 * long], mask);
        }
    }
}
