//! What a request asks for, and from whom: pure, and as strict as HTTP allows.

use http::{HeaderMap, Method, Uri, header};
use model::egress::Host;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `CONNECT host:port`.
    Tunnel { host: Host, port: u16 },
    /// `GET http://host/path`, and what its Host header says when that is something else.
    Absolute { host: Host, port: u16, other: Option<String> },
    /// `GET /path`, with the host from the header.
    Origin { host: Host, port: u16 },
}

/// Why a request has no target, in words.
pub(crate) type Fault = &'static str;

/// The default port of `http`.
pub(crate) const HTTP: u16 = 80;

/// Reads the request line and the Host header.
pub(crate) fn target(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Target, Fault> {
    if *method == Method::CONNECT {
        // Nothing but an authority: hyper leaves no scheme and no path in it.
        let named = uri.authority().filter(|_| uri.scheme().is_none() && uri.path_and_query().is_none());
        let (host, port) = authority(named.ok_or("CONNECT without a host")?.as_str()).ok_or("not a host")?;
        return Ok(Target::Tunnel { host, port: port.ok_or("CONNECT without a port")? });
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let named = hosts.next().map(|host| host.to_str().map_err(|_| "a Host header that is no host")).transpose()?;
    if hosts.next().is_some() {
        return Err("more than one Host header");
    }
    let Some(absolute) = uri.authority() else {
        if !uri.path().starts_with('/') {
            return Err("not a path");
        }
        let (host, port) = authority(named.ok_or("no Host header")?).ok_or("a Host header that is no host")?;
        return Ok(Target::Origin { host, port: port.unwrap_or(HTTP) });
    };
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err("https goes through CONNECT"),
        Some(_) => return Err("a scheme that is not carried"),
        None => return Err("a host without a scheme"),
    }
    let (host, port) = authority(absolute.as_str()).ok_or("not a host")?;
    let port = port.unwrap_or(HTTP);
    let other = match named {
        None => None,
        Some(named) => match authority(named) {
            Some((same, own)) if same == host && own.unwrap_or(HTTP) == port => None,
            Some(_) | None => Some(named.to_owned()),
        },
    };
    Ok(Target::Absolute { host, port, other })
}

/// A host and perhaps a port. Users and passwords are refused: a host may hide behind them.
pub(crate) fn authority(text: &str) -> Option<(Host, Option<u16>)> {
    let (host, rest) = if text.starts_with('[') {
        text.split_at(text.find(']')? + 1)
    } else {
        text.split_at(text.find(':').unwrap_or(text.len()))
    };
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        Some("") => None,
        Some(digits) if digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok()?)
        }
        None | Some(_) => return None,
    };
    Some((host.parse().ok()?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Host {
        Host::Name(text.to_owned())
    }

    fn read(method: &str, uri: &str, hosts: &[&str]) -> Result<Target, Fault> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, host.parse().unwrap());
        }
        target(&method.parse().unwrap(), &uri.parse().unwrap(), &headers)
    }

    #[test]
    fn each_form_names_its_host() {
        let port = 443;
        assert_eq!(read("CONNECT", "A.test:443", &[]), Ok(Target::Tunnel { host: name("a.test"), port }));
        let absolute = |port| Ok(Target::Absolute { host: name("a.test"), port, other: None });
        assert_eq!(read("GET", "http://a.test/x?y", &["a.test"]), absolute(80));
        assert_eq!(read("GET", "http://a.test:80/", &["A.TEST."]), absolute(80));
        assert_eq!(read("GET", "http://a.test:8080", &[]), absolute(8080));
        assert_eq!(read("GET", "/x", &["a.test:81"]), Ok(Target::Origin { host: name("a.test"), port: 81 }));
    }

    #[test]
    fn another_host_in_the_header_is_seen() {
        for other in ["b.test", "a.test:81", "a.test, b.test", "x@a.test", ""] {
            let expected = Ok(Target::Absolute { host: name("a.test"), port: 80, other: Some(other.to_owned()) });
            assert_eq!(read("GET", "http://a.test/", &[other]), expected, "{other}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (method, uri, hosts) in [
            ("CONNECT", "a.test", &[][..]),
            ("CONNECT", "u@a.test:443", &[]),
            ("CONNECT", "http://a.test:443/", &[]),
            ("GET", "https://a.test/", &[]),
            ("GET", "ftp://a.test/", &[]),
            ("GET", "http://a.test@evil.test/", &[]),
            ("GET", "http://u:p@a.test/", &[]),
            ("GET", "http://a.test:99999/", &[]),
            ("GET", "/", &[]),
            ("GET", "/", &["a.test", "a.test"]),
            ("GET", "/", &["a.test", "b.test"]),
            ("GET", "/", &["a test"]),
            ("OPTIONS", "*", &["a.test"]),
            ("GET", "a.test:80", &["a.test"]),
        ] {
            assert!(read(method, uri, hosts).is_err(), "{method} {uri} {hosts:?}");
        }
    }
}
