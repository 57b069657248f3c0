//! Webhooks: where messages may go, when they are tried again, and how they are signed ([`signature`]).
//!
//! Where a message goes is decided as the gateway decides for sessions ([`crate::egress`]): by address, each time that it
//! is connected to, whatever a name or an answer says.

pub mod signature;

use std::{net::IpAddr, str::FromStr};

use wire::{Egress, FieldError, Timestamp};

use crate::{
    binding::Upstream,
    egress::{Deployment, Host, Permit, Policy, Reason, Refused, canonical},
};

/// Bytes of a URL: what servers commonly take.
const MAX_URL: usize = 2048;

/// For how long a message is tried.
pub const ROUND_MS: i64 = 24 * 3_600_000;

/// The pause after each attempt, in milliseconds; the last one from then on. In 24 hours that makes some twenty attempts,
/// half of them in the first hours, when most outages end.
const PAUSES_MS: [i64; 8] = [5_000, 30_000, 120_000, 300_000, 900_000, 1_800_000, 3_600_000, 7_200_000];

/// Where a message goes: `https` or `http`, a host, a port, a path and a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookUrl {
    text: String,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Its host.
    pub host: Host,
    /// Its port, the scheme's own if none was given.
    pub port: u16,
    /// Where path and query begin in the text; its end if it has none.
    target: usize,
}

/// Why a text is no such URL, in words that can stand behind the name of a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAWebhookUrl(String);

impl WebhookUrl {
    /// The URL of a request, or its fault.
    pub fn decide(text: &str, faults: &mut Vec<FieldError>) -> Option<Self> {
        text.parse().map_err(|why: NotAWebhookUrl| faults.push(FieldError::new("webhookUrl", why.to_string()))).ok()
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Path and query, as they stand in a request.
    pub fn target(&self) -> String {
        let rest = &self.text[self.target..];
        if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") }
    }

    /// Host and port, as they stand in a request.
    pub fn authority(&self) -> String {
        let host = match &self.host {
            Host::Address(IpAddr::V6(v6)) => format!("[{v6}]"),
            Host::Address(IpAddr::V4(_)) | Host::Name(_) => self.host.to_string(),
        };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl FromStr for WebhookUrl {
    type Err = NotAWebhookUrl;

    fn from_str(text: &str) -> Result<Self, NotAWebhookUrl> {
        let wrong = |why: &str| NotAWebhookUrl(why.to_owned());
        if text.len() > MAX_URL {
            return Err(wrong("must be at most 2048 bytes"));
        }
        if text.contains('#') {
            return Err(wrong("must have no fragment"));
        }
        let (before, query) = text.split_once('?').map_or((text, None), |(before, query)| (before, Some(query)));
        let upstream = Upstream::read(before).map_err(|why| NotAWebhookUrl(why.to_string()))?;
        let visible = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'"' | b'<' | b'>');
        if !query.unwrap_or_default().bytes().all(visible) {
            return Err(wrong("must be visible ASCII without spaces; encode the rest with %"));
        }
        let authority = before.find("://").map_or(0, |at| at + 3);
        let target = text[authority..].find(['/', '?']).map_or(text.len(), |at| authority + at);
        Ok(Self { text: text.to_owned(), tls: upstream.tls, host: upstream.host, port: upstream.port, target })
    }
}

/// Who may be told: everybody, apart from private, special and own addresses that the deployment does not list.
#[derive(Clone, Debug, Default)]
pub struct Receivers(Policy);

impl Receivers {
    /// With the addresses that the deployment lists.
    pub fn new(permitted: Vec<Permit>) -> Self {
        Self(Policy::new(&Egress::default(), Deployment { permitted, own: Vec::new() }))
    }

    /// The same, with these addresses as the host's own.
    #[must_use]
    pub fn with_own(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self(self.0.clone().with_own(addresses))
    }

    /// Whether this address may be connected to. `host` is what the URL says.
    pub fn address(&self, address: IpAddr, port: u16, host: &Host) -> Result<(), Refused> {
        let address = canonical(address);
        // A name that is on nobody's list: what is neither special nor private may be reached by it.
        self.0.address(address, port, Some("the receiver")).map_err(|refused| {
            let shown = match host {
                Host::Name(name) => format!("{name} ({address})"),
                Host::Address(_) => address.to_string(),
            };
            let kind = match refused.reason {
                Reason::AlwaysDenied(special) => special.as_str().replace('_', " "),
                Reason::PrivateAddress
                | Reason::NotAllowed
                | Reason::PortNotAllowed
                | Reason::NotAHost
                | Reason::NotResolved
                | Reason::NoServerName
                | Reason::OtherName
                | Reason::NotRecognised
                | Reason::NotCarried
                | Reason::Quota
                | Reason::Binding => "private address".to_owned(),
            };
            let article = if kind.starts_with("own") { "an" } else { "a" };
            let detail = format!("{shown} is {article} {kind}, to which this deployment sends no webhooks");
            Refused::flat(refused.reason, detail)
        })
    }

    /// What is known of a URL without looking its name up: refuses addresses in it, in whatever spelling.
    pub fn literal(&self, url: &WebhookUrl) -> Result<(), Refused> {
        match &url.host {
            Host::Address(address) => self.address(*address, url.port, &url.host),
            Host::Name(name) if name == "localhost" || name.ends_with(".localhost") => {
                self.address(IpAddr::from([127, 0, 0, 1]), url.port, &url.host)
            }
            Host::Name(_) => Ok(()),
        }
    }
}

/// When a message is tried again that was tried `tries` times in this round; none when the round is over. `chance` spreads
/// the attempts of messages that failed together, by a fifth of the pause to either side.
pub fn next_attempt(now: Timestamp, until: Timestamp, tries: u32, chance: u16) -> Option<Timestamp> {
    if now >= until {
        return None;
    }
    let last = PAUSES_MS.len() - 1;
    let pause = PAUSES_MS[usize::try_from(tries.saturating_sub(1)).unwrap_or(last).min(last)];
    let spread = pause / 5;
    let pause = pause - spread + 2 * spread * i64::from(chance) / i64::from(u16::MAX);
    // The last attempt is at the end of the round, not before it.
    Some(Timestamp::from_millis(now.as_millis() + pause).min(until))
}

#[cfg(test)]
mod tests;
