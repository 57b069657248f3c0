//! The model of a session's gateway: its decisions are the real ones, made by [`model::egress`]; what it would connect to
//! is not there. Names resolve to an address that is made of them, unless the program says otherwise.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::{SystemTime, UNIX_EPOCH},
};

use model::{
    egress::{Host, Reason, Refused},
    gateway::{BoundService, FromGateway, GatewayEvent, GatewaySpec, ToGateway},
    pattern::Pattern,
};
use protocol::egress::{INSIDE, below_internal};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use wire::{AuditSource, AuditType, BindingAllow, BindingId, Denial, Timestamp};

use super::{digest, program::Reach};
use crate::GatewayEnd;

/// Bytes that a modelled exchange counts as.
const EXCHANGE_BYTES: u64 = 1024;
/// Names that a program may give an address (`dns`); it is not to fill the memory with them.
const MAX_NAMES: usize = 1000;

/// See the module.
#[derive(Debug)]
pub(super) struct ModelGateway {
    spec: GatewaySpec,
    said: mpsc::Sender<FromGateway>,
    names: BTreeMap<String, IpAddr>,
    calls: BTreeMap<BindingId, u64>,
    bytes: u64,
}

/// Where something on the network is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
    /// Of a URL: what follows the authority.
    path: String,
    encrypted: bool,
}

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tried {
    /// It worked, at this address if there is one.
    Reached(Option<IpAddr>),
    /// It did not, for this reason.
    Refused(String),
}

impl ModelGateway {
    /// Takes an end of the channel to the driver; the other half of it is what it is told.
    pub(super) fn new(spec: GatewaySpec, end: GatewayEnd) -> (Self, mpsc::Receiver<ToGateway>) {
        let GatewayEnd { events, orders } = end;
        (Self { spec, said: events, names: BTreeMap::new(), calls: BTreeMap::new(), bytes: 0 }, orders)
    }

    /// From now on a name resolves to this.
    pub(super) fn name(&mut self, name: &str, address: IpAddr) {
        if self.names.len() < MAX_NAMES {
            self.names.insert(name.to_ascii_lowercase(), address);
        }
    }

    /// Tries to reach something.
    pub(super) async fn connect(&mut self, reach: Reach, to: &str) -> Tried {
        match reach {
            Reach::Tcp => match authority(to, None) {
                Some(place) => self.open(&place, &format!("connect tcp {to}"), "tcp").await,
                None => self.deny(&format!("connect tcp {to}"), &no_host(to)).await,
            },
            Reach::Udp => {
                let detail = "UDP is not carried, except for DNS";
                // As where a kernel does not tell which.
                let to = if to.starts_with('[') { "over IPv6" } else { to };
                self.deny(&format!("send udp {to}"), &Refused::flat(Reason::NotCarried, detail)).await
            }
            Reach::Dns => self.resolve(to).await,
            Reach::Http => self.request("GET", to).await,
        }
    }

    /// An HTTP request, by whatever way it goes: to a binding, through the proxy, or captured.
    pub(super) async fn request(&mut self, method: &str, url: &str) -> Tried {
        let Some(place) = read_url(url) else {
            return self.deny(&format!("http {method} {url}"), &no_host(url)).await;
        };
        if let Some(name) = below_internal(&place.host) {
            return self.invoke(name, method, &place.path).await;
        }
        // What is inside of TLS nobody sees.
        if place.encrypted {
            self.open(&place, &format!("connect tcp {}:{}", place.host, place.port), "connect").await
        } else {
            self.open(&place, &format!("http {method} {url}"), "http").await
        }
    }

    /// A call of a binding.
    pub(super) async fn invoke(&mut self, name: &str, method: &str, path: &str) -> Tried {
        let path = path.split('?').next().unwrap_or_default();
        let bound = self.spec.bindings.iter().find(|bound| bound.spec.name == name);
        let mut data = json!({ "name": name, "method": method, "path": path });
        if let Some(bound) = bound {
            data["binding"] = bound.id.to_string().into();
        }
        let decided = decide_call(bound, name, method, path, &self.calls);
        match decided {
            Ok(id) => {
                *self.calls.entry(id).or_default() += 1;
                self.bytes += EXCHANGE_BYTES;
                self.tell(AuditType::BindingInvoked, AuditSource::Gateway, data, None).await;
                Tried::Reached(None)
            }
            Err(detail) => {
                data["reason"] = Reason::Binding.as_str().into();
                data["detail"] = detail.clone().into();
                let denial = Refused::flat(Reason::Binding, detail.clone()).denial(format!("{method} {name}{path}"));
                self.tell(AuditType::BindingDenied, AuditSource::Gateway, data, Some(denial)).await;
                Tried::Refused(detail)
            }
        }
    }

    /// Says that it is over, and how much there was.
    pub(super) async fn finish(&mut self) {
        let _ = self.said.send(FromGateway::Done { egress_bytes: self.bytes }).await;
    }

    async fn resolve(&mut self, name: &str) -> Tried {
        let attempted = format!("resolve {name}");
        match name.parse::<Host>() {
            Ok(Host::Address(address)) => Tried::Reached(Some(address)),
            Ok(Host::Name(name)) if below_internal(&name).is_some() => Tried::Reached(Some(INSIDE.into())),
            Ok(Host::Name(name)) => match self.spec.policy.name(&name, None) {
                Ok(()) => Tried::Reached(Some(self.look_up(&name))),
                Err(refused) => self.deny(&attempted, &refused).await,
            },
            Err(_) => self.deny(&attempted, &no_host(name)).await,
        }
    }

    async fn open(&mut self, place: &Place, attempted: &str, protocol: &str) -> Tried {
        let decided = match place.host.parse::<Host>() {
            Ok(Host::Address(address)) => self.spec.policy.address(address, place.port, None).map(|()| address),
            Ok(Host::Name(name)) => self.spec.policy.name(&name, Some(place.port)).and_then(|()| {
                let address = self.look_up(&name);
                self.spec.policy.address(address, place.port, Some(&name)).map(|()| address)
            }),
            Err(_) => Err(no_host(&place.host)),
        };
        match decided {
            Ok(address) => {
                let data = json!({
                    "destination": format!("{}:{}", place.host, place.port),
                    "address": address.to_string(),
                    "protocol": protocol,
                });
                self.bytes += EXCHANGE_BYTES;
                self.tell(AuditType::EgressAllowed, AuditSource::Gateway, data, None).await;
                Tried::Reached(Some(address))
            }
            Err(refused) => self.deny(attempted, &refused).await,
        }
    }

    async fn deny(&mut self, attempted: &str, refused: &Refused) -> Tried {
        let mut data = json!({ "attempted": attempted, "reason": refused.reason.as_str(), "detail": refused.detail });
        if let Some(rule) = &refused.allowed_by {
            data["allowedBy"] = Value::String(rule.clone());
        }
        // Of datagrams only the inside knows.
        let source = if refused.reason == Reason::NotCarried { AuditSource::Runner } else { AuditSource::Gateway };
        self.tell(AuditType::EgressDenied, source, data, Some(refused.denial(attempted))).await;
        Tried::Refused(refused.detail.clone())
    }

    async fn tell(&self, kind: AuditType, source: AuditSource, data: Value, denial: Option<Denial>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ts = Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
        // A driver that is gone needs no telling.
        let _ = self.said.send(FromGateway::Event(GatewayEvent { ts, kind, source, data, denial })).await;
    }

    /// One of 203.0.113.1 to 203.0.113.254, always the same for a name.
    fn look_up(&self, name: &str) -> IpAddr {
        let last = u8::try_from(digest(name) % 254).expect("less than 254") + 1;
        self.names.get(name).copied().unwrap_or(Ipv4Addr::new(203, 0, 113, last).into())
    }
}

fn no_host(text: &str) -> Refused {
    Refused::flat(Reason::NotAHost, format!("{text} names no host and port"))
}

/// `host:port`; the port may be left out if there is a default.
fn authority(text: &str, default: Option<u16>) -> Option<Place> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok()?)),
        Some(_) | None => (text, default),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some(Place { host: host.to_ascii_lowercase(), port: port?, path: "/".into(), encrypted: false })
}

fn read_url(url: &str) -> Option<Place> {
    let (scheme, rest) = url.split_once("://")?;
    let (default, encrypted) = match scheme {
        "http" => (80, false),
        "https" => (443, true),
        _ => return None,
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (of, path) = rest.split_at(end);
    let place = authority(of.rsplit('@').next().unwrap_or(of), Some(default))?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Some(Place { path, encrypted, ..place })
}

/// Whether a binding may be called so.
fn decide_call(
    bound: Option<&BoundService>,
    name: &str,
    method: &str,
    path: &str,
    calls: &BTreeMap<BindingId, u64>,
) -> Result<BindingId, String> {
    let bound = bound.ok_or_else(|| format!("the session has no binding named {name}"))?;
    let segments: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    let allows = |allow: &BindingAllow| {
        (allow.methods.is_empty() || allow.methods.iter().any(|allowed| allowed.eq_ignore_ascii_case(method)))
            && (allow.paths.is_empty() || allow.paths.iter().any(|pattern| Pattern::new(pattern).fits(&segments)))
    };
    if !bound.spec.allow.is_empty() && !bound.spec.allow.iter().any(allows) {
        return Err(format!("binding {name} does not allow {method} {path}"));
    }
    let limit = bound.spec.budget.and_then(|budget| budget.calls);
    let made = calls.get(&bound.id).copied().unwrap_or_default();
    match limit {
        Some(limit) if made >= limit => Err(format!("binding {name} has a budget of {limit} calls")),
        Some(_) | None => Ok(bound.id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_authorities_are_read_and_nonsense_is_not() {
        let place = |host: &str, port, path: &str, encrypted| {
            Some(Place { host: host.into(), port, path: path.into(), encrypted })
        };
        assert_eq!(read_url("http://Example.org"), place("example.org", 80, "/", false));
        assert_eq!(read_url("https://u:p@a.test:8443/x?y#z"), place("a.test", 8443, "/x?y#z", true));
        assert_eq!(read_url("http://[::1]:80/"), place("::1", 80, "/", false));
        assert_eq!(authority("[fd00:ec2::254]:80", None), place("fd00:ec2::254", 80, "/", false));
        for nonsense in ["", "example.org", "ftp://x/", "http://x:port/", "http://x:99999/"] {
            assert_eq!(read_url(nonsense), None, "{nonsense}");
        }
        assert_eq!(authority("example.org", None), None);
    }
}
