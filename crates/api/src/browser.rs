//! Keeps web pages away from a server that asks nobody who they are.
//!
//! In the dev profile every call that reaches the port acts as an owner, and a browser on the same machine reaches it
//! on behalf of any page: directly (a form, a `fetch`), or under a name of the page's own that resolves to 127.0.0.1
//! (DNS rebinding). Both show in headers that a page cannot choose: `Host`, `Origin`, `Sec-Fetch-Site`.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, Uri, header, uri::Authority};
use wire::ErrorCode;

use crate::failure::Failure;

/// Refuses what does not address this machine by a loopback name, or comes from a page of another origin.
pub(crate) fn refuse_web_pages(uri: &Uri, headers: &HeaderMap) -> Result<(), Failure> {
    let host = addressed(uri, headers)
        .filter(is_loopback)
        .ok_or_else(|| forbidden("without identities this server is reached as localhost, 127.0.0.1 or [::1] only"))?;
    let same_origin = headers.get_all(header::ORIGIN).iter().all(|origin| {
        let authority = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_str()))
    });
    let same_site =
        headers.get_all("sec-fetch-site").iter().all(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
    if same_origin && same_site {
        return Ok(());
    }
    Err(forbidden("without identities this server takes no calls from web pages of another origin"))
}

fn forbidden(detail: &str) -> Failure {
    Failure::new(ErrorCode::Forbidden, detail)
}

/// What the request addresses: its one `Host`, and the target's authority (HTTP/2, absolute form), which must agree.
fn addressed(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) => None,
        (Some(host), None) => Some(host.to_str().ok()?.parse::<Authority>().ok()?),
        (Some(_), Some(_)) => return None,
    };
    match (host, uri.authority()) {
        (Some(host), Some(target)) => (host == *target).then_some(host),
        (Some(host), None) => Some(host),
        (None, target) => target.cloned(),
    }
}

fn is_loopback(authority: &Authority) -> bool {
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    if let Some(v6) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return v6.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
    }
    host.eq_ignore_ascii_case("localhost") || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn verdict(target: &str, pairs: &[(&str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        refuse_web_pages(&target.parse().unwrap(), &headers).is_ok()
    }

    #[test]
    fn loopback_names_are_taken() {
        for host in ["localhost", "LOCALHOST:8088", "127.0.0.1", "127.0.0.1:8088", "127.9.8.7:1", "[::1]", "[::1]:8088"]
        {
            assert!(verdict("/", &[("host", host)]), "{host}");
            assert!(verdict(&format!("http://{host}/"), &[]), "{host} as :authority");
        }
    }

    #[test]
    fn every_other_host_is_refused() {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "localhost.",
            "127.0.0.1.evil.example",
            "127.0.0.1.nip.io:8088",
            "0.0.0.0:8088",
            "10.0.0.1",
            "2130706433",
            "0x7f000001",
            "127.1",
            "[::ffff:127.0.0.1]",
            "[::]",
            "localhost@evil.example",
            "evil.example@localhost",
            "localhost, evil.example",
            "",
        ] {
            assert!(!verdict("/", &[("host", host)]), "{host}");
        }
        assert!(!verdict("/", &[]));
        assert!(!verdict("/", &[("host", "localhost"), ("host", "localhost")]));
        assert!(!verdict("http://evil.example/", &[("host", "localhost")]));
        assert!(!verdict("http://localhost/", &[("host", "evil.example")]));
    }

    #[test]
    fn pages_of_this_server_may_call_it_and_no_others() {
        let host = ("host", "localhost:8088");
        assert!(verdict("/", &[host, ("origin", "http://localhost:8088")]));
        assert!(verdict("/", &[host, ("sec-fetch-site", "same-origin")]));
        assert!(verdict("/", &[host, ("sec-fetch-site", "none")]));
        for origin in [
            "http://localhost:3000",
            "http://localhost",
            "http://127.0.0.1:8088",
            "https://localhost:8088",
            "http://evil.example",
            "null",
            "file://",
            "",
        ] {
            assert!(!verdict("/", &[host, ("origin", origin)]), "{origin}");
        }
        for site in ["cross-site", "same-site", "", "Cross-Site", "same-origin, none"] {
            assert!(!verdict("/", &[host, ("sec-fetch-site", site)]), "{site}");
        }
        assert!(!verdict("/", &[host, ("origin", "http://localhost:8088"), ("origin", "http://evil.example")]));
    }
}
