//! The URL of a service, read more strictly than browsers do: what two readers could understand differently is refused.

use std::str::FromStr;

use protocol::egress::INTERNAL_DOMAIN;
use wire::{BindingUpstream, FieldError};

use crate::egress::{Host, Special};

/// Bytes of a URL: what servers commonly take.
const MAX_URL: usize = 2048;
/// Bytes of certificates: a chain or two.
const MAX_PEM: usize = 64 * 1024;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// One service: where it is, and below which path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Its host.
    pub host: Host,
    /// Its port, the scheme's own if none was given.
    pub port: u16,
    /// The path before that of a request: empty, or `/` and segments, without a `/` at its end.
    pub base: String,
}

/// Why a text is no upstream, in words that can stand behind the name of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAnUpstream(&'static str);

impl FromStr for Upstream {
    type Err = NotAnUpstream;

    fn from_str(text: &str) -> Result<Self, NotAnUpstream> {
        let upstream = Self::read(text)?;
        match &upstream.host {
            Host::Name(name)
                if name.strip_suffix(INTERNAL_DOMAIN).is_some_and(|r| r.is_empty() || r.ends_with('.')) =>
            {
                // Below it sessions find their bindings: no service has such a name.
                return Err(NotAnUpstream("is a name of the platform's own"));
            }
            Host::Address(address) => refuse_special(Special::of(*address))?,
            Host::Name(_) => {}
        }
        Ok(upstream)
    }
}

impl Upstream {
    /// Reads the form, and does not judge where it leads.
    pub(crate) fn read(text: &str) -> Result<Self, NotAnUpstream> {
        let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(NotAnUpstream("must start with https:// or http://")),
        };
        if text.len() > MAX_URL {
            return Err(NotAnUpstream("must be at most 2048 bytes"));
        }
        if !rest.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'"' | b'<' | b'>')) {
            return Err(NotAnUpstream("must be visible ASCII without spaces; encode the rest with %"));
        }
        if rest.contains(['?', '#']) {
            return Err(NotAnUpstream("must have no query and no fragment"));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(NotAnUpstream("must hold no user and no password; those are the secret's"));
        }
        let (host, port) = split_port(authority)?;
        let host: Host = host.parse().map_err(|_| NotAnUpstream("must have a host name or an address"))?;
        if has_dots(path) {
            return Err(NotAnUpstream("must have no . and .. segments in its path"));
        }
        if path.contains("//") || !is_encoded(path) {
            return Err(NotAnUpstream("must have a path of segments that are not empty and well encoded"));
        }
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { tls, host, port, base: path.strip_suffix('/').unwrap_or(path).to_owned() })
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), NotAnUpstream> {
    let host_end = authority.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = authority[host_end..].find(':').map(|at| host_end + at) else { return Ok((authority, None)) };
    let (host, port) = (&authority[..colon], &authority[colon + 1..]);
    let digits = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| digits && *port > 0);
    port.map(|port| (host, Some(port))).ok_or(NotAnUpstream("must have a port from 1 to 65535, or none"))
}

/// Addresses of which it is known without looking that no binding may lead there. Loopback is the gateway's to decide:
/// some deployments permit it.
fn refuse_special(special: Option<Special>) -> Result<(), NotAnUpstream> {
    match special {
        Some(Special::Metadata) => Err(NotAnUpstream("is a cloud's metadata service, which no binding may lead to")),
        Some(Special::LinkLocal) => Err(NotAnUpstream("is a link-local address, which no binding may lead to")),
        Some(Special::Multicast) => Err(NotAnUpstream("is a multicast address, which no binding may lead to")),
        Some(Special::Reserved) => Err(NotAnUpstream("is a reserved address, which no binding may lead to")),
        Some(Special::Loopback | Special::Own) | None => Ok(()),
    }
}

/// Whether a path has segments that mean another one, in any spelling.
pub(crate) fn has_dots(path: &str) -> bool {
    path.split('/').any(|segment| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | ".."))
}

/// Whether each `%` begins an escape.
fn is_encoded(path: &str) -> bool {
    path.split('%').skip(1).all(|rest| {
        let mut bytes = rest.bytes();
        let hex = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
        hex(bytes.next()) && hex(bytes.next())
    })
}

pub(super) fn check_url(path: &str, url: &str, faults: &mut Vec<FieldError>) {
    if let Err(why) = url.parse::<Upstream>() {
        faults.push(FieldError::new(path, why.to_string()));
    }
}

pub(super) fn check(upstream: &BindingUpstream, faults: &mut Vec<FieldError>) {
    check_url("upstream.url", &upstream.url, faults);
    let Some(pem) = &upstream.ca_pem else { return };
    if pem.len() > MAX_PEM {
        faults.push(FieldError::new("upstream.caPem", format!("must be at most {MAX_PEM} bytes")));
    } else if !is_pem(pem) {
        faults.push(FieldError::new("upstream.caPem", "must be certificates in PEM, and nothing else"));
    }
    if upstream.url.starts_with("http://") {
        faults.push(FieldError::new("upstream.caPem", "is of no use without https"));
    }
}

/// Whether a text is certificates in PEM, one at least. A private key in it would be kept in the clear.
fn is_pem(text: &str) -> bool {
    let mut found = 0;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    while let Some(line) = lines.next() {
        let base64 = |line: &str| line.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
        let mut inside = 0;
        let closed = line == BEGIN
            && lines.by_ref().find(|line| {
                *line == END || !base64(line) || {
                    inside += 1;
                    false
                }
            }) == Some(END);
        if !closed || inside == 0 {
            return false;
        }
        found += 1;
    }
    found > 0
}
