//! Kinds of addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Addresses that no session may reach, whatever its list says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Special {
    /// The metadata service of a cloud.
    Metadata,
    /// Link-local: the neighbours of the host.
    LinkLocal,
    /// The host itself.
    Loopback,
    /// Many hosts at once, broadcast included.
    Multicast,
    /// No address of a host: unspecified, reserved.
    Reserved,
    /// The host's or the control plane's own.
    Own,
}

impl Special {
    /// The kind of an address in its canonical form.
    pub fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(v4) => of_v4(v4),
            IpAddr::V6(v6) => of_v6(v6),
        }
    }

    /// The word in audit events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metadata => "metadata_address",
            Self::LinkLocal => "link_local_address",
            Self::Loopback => "loopback_address",
            Self::Multicast => "multicast_address",
            Self::Reserved => "reserved_address",
            Self::Own => "own_address",
        }
    }

    pub(super) fn described(self) -> &'static str {
        match self {
            Self::Metadata => "a cloud's metadata service",
            Self::LinkLocal => "a link-local address",
            Self::Loopback => "the host itself",
            Self::Multicast => "a multicast or broadcast address",
            Self::Reserved => "a reserved address",
            Self::Own => "an address of this deployment",
        }
    }
}

/// Metadata services outside link-local ranges: Alibaba, Azure, Oracle.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
/// Of AWS, of Google.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

fn of_v4(address: Ipv4Addr) -> Option<Special> {
    let [first, ..] = address.octets();
    match first {
        _ if METADATA_V4.contains(&address) || address == Ipv4Addr::new(169, 254, 169, 254) => Some(Special::Metadata),
        127 => Some(Special::Loopback),
        224..=239 | 255 if address.is_multicast() || address.is_broadcast() => Some(Special::Multicast),
        0 | 240..=255 => Some(Special::Reserved),
        _ if address.is_link_local() => Some(Special::LinkLocal),
        _ => None,
    }
}

fn of_v6(address: Ipv6Addr) -> Option<Special> {
    let first = address.segments()[0];
    match first {
        _ if METADATA_V6.contains(&address) => Some(Special::Metadata),
        _ if address.is_loopback() => Some(Special::Loopback),
        // Site-local is long deprecated, and no less local.
        0xfe80..=0xfeff => Some(Special::LinkLocal),
        0xff00..=0xffff => Some(Special::Multicast),
        // Unspecified, IPv4-compatible, and whatever else the first block has; discard-only.
        0 | 0x100 => Some(Special::Reserved),
        _ => embedded(address).and_then(of_v4),
    }
}

/// The IPv4 address that a transition mechanism would make of this one: NAT64 (also local), 6to4, Teredo.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] | [0x2002, high, low, ..] => {
            Some(v4(high, low))
        }
        [0x2001, 0, _, _, _, _, high, low] => Some(v4(!high, !low)),
        _ => None,
    }
}

/// The one form in which an address is decided: IPv4 written as IPv6 is IPv4.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Whether an address means another host in another network: private, shared, unique local, benchmarking. So does one
/// that a transition mechanism would make of it.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => v6.is_unique_local() || embedded(v6).is_some_and(is_private_v4),
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    address.is_private()
        || (first == 100 && (64..128).contains(&second))
        || (first == 198 && (18..20).contains(&second))
        || (first == 192 && second == 0 && third == 0)
}
