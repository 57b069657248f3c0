//! The host part of what a client asks for: a name, or an address in any of its spellings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name, in lower case, without the final dot.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// The text is neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a host name or an address")]
pub struct NotAHost;

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

impl std::str::FromStr for Host {
    type Err = NotAHost;

    /// Takes what clients take: names, dotted addresses, IPv6 with and without brackets, and IPv4 as `inet_aton` reads
    /// it (`2852039166`, `0xa9fea9fe`, `0251.0376.0251.0376`, `127.1`). A zone index is refused: it names an interface.
    fn from_str(text: &str) -> Result<Self, NotAHost> {
        let bracketed = text.strip_prefix('[').map(|rest| rest.strip_suffix(']').ok_or(NotAHost)).transpose()?;
        if let Some(inner) = bracketed {
            return inner
                .parse::<Ipv6Addr>()
                .map(|v6| Self::Address(IpAddr::V6(v6).to_canonical()))
                .map_err(|_| NotAHost);
        }
        if let Ok(v6) = text.parse::<Ipv6Addr>() {
            return Ok(Self::Address(IpAddr::V6(v6).to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if !is_name(&name) {
            return Err(NotAHost);
        }
        // As in the WHATWG's URL standard: what ends in a number is an address or nothing.
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|byte| byte.is_ascii_digit()) || number(last).is_some() {
            return loose(&name).map(|v4| Self::Address(v4.into())).ok_or(NotAHost);
        }
        Ok(Self::Name(name))
    }
}

/// Letters, digits, `-` and `_` in labels of at most 63.
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// IPv4 as `inet_aton` reads it: one to four numbers, the last of which fills what is left.
fn loose(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u64> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, before) = parts.split_last()?;
    if before.len() > 3 || before.iter().any(|part| *part > 255) || *last >= 1 << (8 * (4 - before.len())) {
        return None;
    }
    let high = before.iter().enumerate().fold(0, |sum, (index, part)| sum | (part << (8 * (3 - index))));
    u32::try_from(high | last).ok().map(Ipv4Addr::from)
}

fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some("") => return Some(0),
        Some(hex) => (hex, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_known_in_every_spelling() {
        let metadata = Host::Address(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)));
        for text in [
            "169.254.169.254",
            "169.254.169.254.",
            "2852039166",
            "0xa9fea9fe",
            "0XA9FEA9FE",
            "0251.0376.0251.0376",
            "0xa9.0xfe.0xa9.0xfe",
            "169.254.43518",
            "169.16689662",
            "::ffff:169.254.169.254",
            "[::ffff:a9fe:a9fe]",
            "[::FFFF:169.254.169.254]",
        ] {
            assert_eq!(text.parse(), Ok(metadata.clone()), "{text}");
        }
        assert_eq!("127.1".parse(), Ok(Host::Address(IpAddr::V4(Ipv4Addr::LOCALHOST))));
    }

    #[test]
    fn names_have_one_form() {
        for text in ["Example.ORG", "example.org", "example.org."] {
            assert_eq!(text.parse(), Ok(Host::Name("example.org".into())), "{text}");
        }
        assert_eq!("_dmarc.a-b.example".parse(), Ok(Host::Name("_dmarc.a-b.example".into())));
        assert_eq!("0xa.example".parse(), Ok(Host::Name("0xa.example".into())));
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("{}.org", "a".repeat(64));
        for text in [
            "",
            ".",
            "a..b",
            "a b",
            "a/b",
            "a@b",
            "a:80",
            "1.2.3.4.5",
            "256.1.1.1",
            "1.2.3.256",
            "4294967296",
            "08",
            "09.1.1.1",
            "fe80::1%eth0",
            "[fe80::1%1]",
            "[::1",
            "::1]",
            "a\0b",
            "a\r\nb",
            "ex\u{e4}mple.org",
            "example.1",
            long.as_str(),
        ] {
            assert_eq!(text.parse::<Host>(), Err(NotAHost), "{text:?}");
        }
    }
}
