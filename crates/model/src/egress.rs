//! Who may be reached: pure decisions over names and addresses. The gateway asks; nobody else opens a connection.
//!
//! A connection is decided in two steps. A name is decided before it is resolved ([`Policy::name`]), so that a name off
//! the list never leaves as a DNS query. Each address is decided before it is connected to ([`Policy::address`]),
//! wherever it came from: an allowed name that resolves to a metadata service gets nowhere.
//!
//! Some addresses are refused whatever the session's list says ([`Special`]), in whatever spelling they come, unless the
//! deployment itself permits them. Private addresses need a CIDR of the list.

mod address;
mod host;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::json;
use wire::{Denial, Egress, EgressMode, EgressRule};

pub use address::{Special, canonical};
pub use host::{Host, NotAHost};

/// What one session may reach, in one deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    rules: Vec<Rule>,
    deployment: Deployment,
}

/// What the deployment says for all sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Addresses that a session's list may allow although they are special or the deployment's own.
    pub permitted: Vec<Permit>,
    /// The host's and the control plane's own addresses, besides loopback.
    pub own: Vec<IpAddr>,
}

/// Addresses, on given ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permit {
    /// The addresses.
    pub net: IpNet,
    /// The ports; every one when empty.
    pub ports: Vec<u16>,
}

/// An entry of a session's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Rule {
    target: Target,
    ports: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Target {
    Net(IpNet),
    Name(String),
    /// Every name that ends in a dot and this; not this itself.
    Below(String),
}

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No entry of the list covers it.
    NotAllowed,
    /// An entry covers the name or address, but not the port.
    PortNotAllowed,
    /// The address is of a kind that is always refused.
    AlwaysDenied(Special),
    /// A private address that no CIDR of the list covers.
    PrivateAddress,
    /// The text is no host name or address.
    NotAHost,
    /// The name does not exist, or nobody could say.
    NotResolved,
    /// TLS says nothing of the name that it is for, so it cannot be decided.
    NoServerName,
    /// What follows is not what was asked for: another name in TLS or in the Host header.
    OtherName,
    /// What follows is not HTTP or TLS, and the address is allowed by its name alone.
    NotRecognised,
    /// A protocol that the gateway does not carry.
    NotCarried,
    /// The session used up its connections or bytes.
    Quota,
    /// There is no binding of that name, or it does not allow this.
    Binding,
}

/// A refusal, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// In words.
    pub detail: String,
    /// The entry of `egress.allow`, as JSON, that would allow it, if one could.
    pub allowed_by: Option<String>,
}

impl Reason {
    /// The word in audit events and in problem documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::PortNotAllowed => "port_not_allowed",
            Self::AlwaysDenied(special) => special.as_str(),
            Self::PrivateAddress => "private_address",
            Self::NotAHost => "not_a_host",
            Self::NotResolved => "not_resolved",
            Self::NoServerName => "no_server_name",
            Self::OtherName => "other_name",
            Self::NotRecognised => "not_recognised",
            Self::NotCarried => "protocol_not_carried",
            Self::Quota => "quota",
            Self::Binding => "binding",
        }
    }
}

impl Refused {
    /// A refusal that no rule would change.
    pub fn flat(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), allowed_by: None }
    }

    /// As an entry of a result's `denials`.
    pub fn denial(&self, attempted: impl Into<String>) -> Denial {
        Denial { attempted: attempted.into(), reason: self.detail.clone(), allowed_by: self.allowed_by.clone() }
    }
}

impl Policy {
    /// The policy of a session whose request was found valid. What is no rule allows nothing.
    pub fn new(egress: &Egress, deployment: Deployment) -> Self {
        let rules = match egress.mode {
            EgressMode::DenyAll => Vec::new(),
            EgressMode::Allowlist => egress.allow.iter().filter_map(Rule::read).collect(),
        };
        Self { rules, deployment }
    }

    /// The same, with these addresses as the host's own besides those that the deployment names.
    #[must_use]
    pub fn with_own(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.deployment.own.extend(addresses);
        self
    }

    /// Whether a name may be resolved, to reach this port; any port of the list when none is given.
    pub fn name(&self, name: &str, port: Option<u16>) -> Result<(), Refused> {
        let covering = |rule: &&Rule| rule.covers_name(name);
        let mut found = self.rules.iter().filter(covering).peekable();
        if found.peek().is_none() {
            let detail = format!("no entry of egress.allow names {name}");
            return Err(Refused { reason: Reason::NotAllowed, detail, allowed_by: Some(rule("domain", name, port)) });
        }
        match port {
            Some(port) if !found.any(|rule| rule.covers_port(port)) => {
                let detail = format!("egress.allow names {name}, but not port {port}");
                let allowed_by = Some(rule("domain", name, Some(port)));
                Err(Refused { reason: Reason::PortNotAllowed, detail, allowed_by })
            }
            _ => Ok(()),
        }
    }

    /// Whether an address may be connected to, on a port. `name` is the name that it was resolved from, which
    /// [`Policy::name`] has allowed for that port; an address without one needs a CIDR that covers it.
    pub fn address(&self, address: IpAddr, port: u16, name: Option<&str>) -> Result<(), Refused> {
        self.judge(address, Some(port), name)
    }

    /// Whether an address may be told as an answer for a name that [`Policy::name`] has allowed: whether there is a
    /// port on which it could be connected to. No permission to connect.
    pub fn answer(&self, address: IpAddr, name: &str) -> Result<(), Refused> {
        self.judge(address, None, Some(name))
    }

    /// On any port, when none is given.
    fn judge(&self, address: IpAddr, port: Option<u16>, name: Option<&str>) -> Result<(), Refused> {
        let address = canonical(address);
        let shown = name.map_or_else(|| address.to_string(), |name| format!("{name} ({address})"));
        self.unless_special(address, port, &shown)?;
        let mut nets = self.rules.iter().filter(|rule| rule.covers_address(address)).peekable();
        let net_named = nets.peek().is_some();
        if nets.any(|rule| port.is_none_or(|port| rule.covers_port(port))) {
            return Ok(());
        }
        let allowed_by = Some(rule("cidr", &IpNet::from(address).to_string(), port));
        let private = address::is_private(address) && !self.deployment.permits(address, port);
        let (reason, detail) = match (name, port) {
            (Some(_), _) if !private => return Ok(()),
            (_, Some(port)) if net_named => {
                (Reason::PortNotAllowed, format!("egress.allow covers {address}, but not port {port}"))
            }
            _ if private => {
                (Reason::PrivateAddress, format!("{shown} is a private address, which needs a CIDR in egress.allow"))
            }
            _ => (Reason::NotAllowed, format!("no entry of egress.allow covers {address}")),
        };
        Err(Refused { reason, detail, allowed_by })
    }

    /// Whether the upstream of a binding may be at this address. Whoever made the binding chose it, so that neither the
    /// session's list nor private ranges matter; what is special stays refused.
    pub fn upstream(&self, address: IpAddr, port: u16) -> Result<(), Refused> {
        let address = canonical(address);
        self.unless_special(address, Some(port), &address.to_string())
    }

    fn unless_special(&self, address: IpAddr, port: Option<u16>, shown: &str) -> Result<(), Refused> {
        match self.deployment.special(address) {
            Some(special) if !self.deployment.permits(address, port) => {
                let detail = format!("{shown} is {}, which no session may reach", special.described());
                Err(Refused::flat(Reason::AlwaysDenied(special), detail))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Deployment {
    /// On any port, when none is given.
    fn permits(&self, address: IpAddr, port: Option<u16>) -> bool {
        let on = |permit: &Permit| port.is_none_or(|port| permit.ports.is_empty() || permit.ports.contains(&port));
        self.permitted.iter().any(|permit| permit.net.contains(&address) && on(permit))
    }

    fn special(&self, address: IpAddr) -> Option<Special> {
        let own = || self.own.iter().any(|own| canonical(*own) == address).then_some(Special::Own);
        // The kind says more than whose it is.
        Special::of(address).or_else(own)
    }
}

impl Rule {
    fn read(rule: &EgressRule) -> Option<Self> {
        let net = |cidr: &str| cidr.parse::<IpNet>().ok().map(Target::Net);
        match rule {
            EgressRule::Cidr(cidr) => Some(Self { target: net(cidr)?, ports: Vec::new() }),
            EgressRule::Target(target) => {
                let read = match (&target.cidr, &target.domain) {
                    (Some(cidr), None) => net(cidr)?,
                    (None, Some(domain)) => match domain.strip_prefix("*.") {
                        Some(below) => Target::Below(below.to_ascii_lowercase()),
                        None => Target::Name(domain.to_ascii_lowercase()),
                    },
                    (None, None) | (Some(_), Some(_)) => return None,
                };
                Some(Self { target: read, ports: target.ports.clone() })
            }
        }
    }

    fn covers_name(&self, name: &str) -> bool {
        match &self.target {
            Target::Net(_) => false,
            Target::Name(own) => name == own,
            Target::Below(own) => name.strip_suffix(own).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }

    fn covers_address(&self, address: IpAddr) -> bool {
        match &self.target {
            Target::Net(net) => net.contains(&address),
            Target::Name(_) | Target::Below(_) => false,
        }
    }

    fn covers_port(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.contains(&port)
    }
}

/// An entry of `egress.allow`.
fn rule(kind: &str, what: &str, port: Option<u16>) -> String {
    match port {
        Some(port) => json!({ kind: what, "ports": [port] }).to_string(),
        None => json!({ kind: what }).to_string(),
    }
}

#[cfg(test)]
mod tests;
