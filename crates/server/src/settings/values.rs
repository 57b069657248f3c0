//! Values as people write them: sizes with binary units, durations with a unit, numbers within bounds.

use std::{ops::RangeInclusive, str::FromStr, time::Duration};

use ipnet::IpNet;
use model::egress::Permit;

const SIZES: &[(&str, u64)] = &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("B", 1)];
const TIMES: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// `512MiB`, `1GiB`, or a bare number of bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size: 512MiB, 1GiB, or a number of bytes");
    let (digits, unit) = split(text);
    let unit = if unit.is_empty() { "B" } else { unit };
    let factor = SIZES.iter().find(|(name, _)| *name == unit).map(|(_, factor)| factor).ok_or_else(wrong)?;
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor)).ok_or_else(wrong)
}

/// `500ms`, `60s`, `5m`, `24h`, `1d`; the unit is needed.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration: 500ms, 60s, 5m, 24h");
    let (digits, unit) = split(text);
    let factor = TIMES.iter().find(|(name, _)| *name == unit).map(|(_, factor)| factor).ok_or_else(wrong)?;
    let ms = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor)).ok_or_else(wrong)?;
    Ok(Duration::from_millis(ms))
}

/// A duration in whole milliseconds.
pub(crate) fn millis(text: &str) -> Result<u64, String> {
    duration(text).map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// A number of cores, `0.5` for example.
pub(crate) fn cores(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|cores| cores.is_finite() && *cores > 0.0)
        .ok_or_else(|| format!("{text:?} is not a number of cores: 0.5, 2"))
}

/// A whole number within bounds.
pub(crate) fn number<T: FromStr + PartialOrd + std::fmt::Display>(
    text: &str,
    bounds: &RangeInclusive<T>,
) -> Result<T, String> {
    text.parse()
        .ok()
        .filter(|number| bounds.contains(number))
        .ok_or_else(|| format!("{text:?} is not a whole number from {} to {}", bounds.start(), bounds.end()))
}

/// `none`, or addresses that are permitted: `127.0.0.1/32:8443,fd00::/8`. The port stands behind the prefix, so that the
/// colons of IPv6 are no matter.
pub(crate) fn permits(text: &str) -> Result<Vec<Permit>, String> {
    if text == "none" {
        return Ok(Vec::new());
    }
    text.split(',').map(|entry| net_and_port(entry.trim()).map(|(net, ports)| Permit { net, ports })).collect()
}

/// `10.0.0.0/8` or `10.0.0.0/8:443`.
fn net_and_port(text: &str) -> Result<(IpNet, Vec<u16>), String> {
    let wrong = || format!("{text:?} is not a CIDR, which may have a port: 127.0.0.1/32:8443");
    let (address, rest) = text.split_once('/').ok_or_else(wrong)?;
    let (prefix, ports) = match rest.split_once(':') {
        Some((prefix, port)) => (prefix, vec![port.parse::<u16>().map_err(|_| wrong())?]),
        None => (rest, Vec::new()),
    };
    let net = format!("{address}/{prefix}").parse().map_err(|_| wrong())?;
    Ok((net, ports))
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        for (text, bytes) in [("0", 0), ("1", 1), ("7B", 7), ("2KiB", 2048), ("512MiB", 512 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "1MB", "1M", "1 MiB", "-1", "1.5GiB", "99999999TiB", "0x10", "1mib"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        for (text, ms) in [("1ms", 1), ("60s", 60_000), ("5m", 300_000), ("24h", 86_400_000), ("1d", 86_400_000)] {
            assert_eq!(millis(text), Ok(ms), "{text}");
        }
        for text in ["", "60", "s", "1.5s", "-1s", "1 s", "1S", "99999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn permits_are_cidrs_with_a_port_or_without() {
        assert_eq!(permits("none"), Ok(Vec::new()));
        let net = |text: &str| text.parse().unwrap();
        let expected = vec![
            Permit { net: net("127.0.0.1/32"), ports: vec![8443] },
            Permit { net: net("fd00::/8"), ports: Vec::new() },
            Permit { net: net("::1/128"), ports: vec![80] },
        ];
        assert_eq!(permits("127.0.0.1/32:8443, fd00::/8,::1/128:80"), Ok(expected));
        for text in
            ["", "127.0.0.1", "127.0.0.1:80", "127.0.0.1/33", "127.0.0.1/32:x", "127.0.0.1/32:", "a/8", "none,::/0"]
        {
            assert!(permits(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cores_are_positive() {
        assert_eq!(cores("0.5"), Ok(0.5));
        for text in ["0", "-1", "nan", "inf", "", "two"] {
            assert!(cores(text).is_err(), "{text}");
        }
    }
}
