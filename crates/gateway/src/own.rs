//! The host's own addresses: no session may reach them, on whatever interface they are.

use std::{
    fs, io,
    net::{IpAddr, Ipv6Addr},
};

/// The kernel's table of routes, in which the host's own IPv4 addresses are marked.
const V4: &str = "/proc/net/fib_trie";
/// The addresses of its interfaces; not there on hosts without IPv6.
const V6: &str = "/proc/net/if_inet6";

/// All of them, as they are now.
pub(crate) fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut found = v4(&fs::read_to_string(V4)?);
    match fs::read_to_string(V6) {
        Ok(table) => found.extend(v6(&table)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// A leaf of the trie is an address on one line, and what it is on the lines below.
fn v4(table: &str) -> Vec<IpAddr> {
    let mut leaf: Option<IpAddr> = None;
    let mut found = Vec::new();
    for line in table.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        } else if line.starts_with("/32 host LOCAL") {
            found.extend(leaf);
        }
    }
    found
}

/// The first word of each line is the address, in 32 digits.
fn v6(table: &str) -> Vec<IpAddr> {
    let address = |line: &str| u128::from_str_radix(line.split_whitespace().next()?, 16).ok();
    table.lines().filter_map(address).map(|bits| Ipv6Addr::from(bits).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\nLocal:\n     +-- 127.0.0.0/8 2 0 2\n        \
                    +-- 127.0.0.0/31 1 0 0\n           |-- 127.0.0.0\n              /8 host LOCAL\n           |-- 127.0.0.1\n              \
                    /32 host LOCAL\n        |-- 127.255.255.255\n           /32 link BROADCAST\n     |-- 192.0.2.7\n        /32 host LOCAL\n";
        assert_eq!(v4(trie), ["127.0.0.1", "192.0.2.7"].map(|text| text.parse::<IpAddr>().unwrap()));
        let table = "00000000000000000000000000000001 01 80 10 80       lo\n20010db8000000000000000000000007 02 40 00 80     eth0\n";
        assert_eq!(v6(table), ["::1", "2001:db8::7"].map(|text| text.parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn this_host_has_some() {
        assert!(addresses().unwrap().contains(&"127.0.0.1".parse().unwrap()));
    }
}
