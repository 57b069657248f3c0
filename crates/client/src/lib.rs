//! The Rust client of the public REST API, server-sent events included.
//!
//! Built on nothing but the contract in `wire`. The commands that call a server (`enclave run`, `shell`, `fleet`, `demo`,
//! `binding`, `trigger`) and the end-to-end tests are its callers; whatever they can do, any other program can.
//!
//! Nearly every call may be repeated safely: reading and deleting are idempotent, and the creation of a session or a fleet
//! carries an idempotency key; those that may not, of bindings, triggers, turns and terminals, are made once. A call that may be and
//! meets a broken connection, 429 or 503 is therefore repeated with the same key, a bounded number of times, after a
//! growing pause or the `Retry-After` of the server. Redirects are never followed: they would carry the API key to a place
//! that nobody configured.

mod artifacts;
mod bindings;
mod call;
mod error;
mod files;
mod fleets;
mod retry;
mod sessions;
mod sse;
mod stream;
mod terminals;
mod triggers;
mod turns;

use std::{fmt, net::IpAddr, time::Duration};

use reqwest::{
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
    redirect,
};
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

pub use bindings::ListBindings;
pub use error::ClientError;
pub use files::ListFiles;
pub use fleets::ListMembers;
pub use retry::Retry;
pub use sessions::{ListSessions, LocalFile};
pub use sse::MAX_FRAME_BYTES;
pub use stream::{FleetFrameStream, FrameStream};
pub use terminals::{TerminalOutput, TerminalSocket};
pub use turns::TurnStream;

/// Where the API is, for clients: the environment variable.
pub const BASE_URL_VARIABLE: &str = "ENCLAVE_BASE_URL";
/// The API key, for clients: the environment variable.
pub const API_KEY_VARIABLE: &str = "ENCLAVE_API_KEY";
/// Where a server listens unless it was told otherwise.
pub const DEFAULT_BASE_URL: &str = "http://127.0.0.1:8088";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of one server with one identity. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    /// The same over HTTP/1.1 alone, for connections that become sockets.
    sockets: reqwest::Client,
    base: Url,
    retry: Retry,
}

impl Client {
    /// A client of the server at `base_url` (`http` or `https`, with a path if a proxy puts it under one).
    pub fn new(base_url: &str, api_key: Option<SecretString>) -> Result<Self, ClientError> {
        let base = parse_base(base_url)?;
        let mut headers = HeaderMap::new();
        if let Some(key) = api_key {
            let mut value =
                HeaderValue::try_from(format!("Bearer {}", key.expose_secret())).map_err(|_| ClientError::Key)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let builder = || {
            let builder = reqwest::Client::builder()
                .default_headers(headers.clone())
                .user_agent(concat!("enclave/", env!("CARGO_PKG_VERSION")))
                .redirect(redirect::Policy::none())
                .connect_timeout(CONNECT_TIMEOUT);
            let builder = if is_loopback(&base) { builder.no_proxy() } else { builder };
            // Where no TLS will be spoken, the host's certificates need neither be read nor be there.
            if base.scheme() == "http" { builder.tls_certs_only([]) } else { builder }
        };
        let http = builder().build().map_err(ClientError::Transport)?;
        let sockets = builder().http1_only().build().map_err(ClientError::Transport)?;
        Ok(Self { http, sockets, base, retry: Retry::default() })
    }

    /// The client that `ENCLAVE_BASE_URL` and `ENCLAVE_API_KEY` describe; the default address when the first is not set.
    pub fn from_env() -> Result<Self, ClientError> {
        let base = match std::env::var(BASE_URL_VARIABLE) {
            Ok(base) if !base.is_empty() => base,
            Ok(_) | Err(std::env::VarError::NotPresent) => DEFAULT_BASE_URL.to_owned(),
            Err(std::env::VarError::NotUnicode(_)) => return Err(ClientError::BaseUrl { reason: "it is not UTF-8" }),
        };
        Self::new(&base, key_from_env()?)
    }

    /// Repeats calls as `retry` says.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Where the server is.
    pub fn base_url(&self) -> &Url {
        &self.base
    }

    /// Whether what is sent, the API key included, can be read on a network on its way.
    pub fn is_in_clear(&self) -> bool {
        self.base.scheme() == "http" && !is_loopback(&self.base)
    }
}

/// `ENCLAVE_API_KEY`, if it is set and not empty.
pub fn key_from_env() -> Result<Option<SecretString>, ClientError> {
    match std::env::var(API_KEY_VARIABLE) {
        Ok(key) if !key.is_empty() => Ok(Some(key.into())),
        Ok(_) | Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(ClientError::Key),
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

fn parse_base(text: &str) -> Result<Url, ClientError> {
    let bad = |reason| ClientError::BaseUrl { reason };
    let url = Url::parse(text).map_err(|_| bad("it is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it starts with neither http:// nor https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("it holds a user name or password; the key belongs into ENCLAVE_API_KEY"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("it has a query or a fragment"));
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).to_canonical().is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_addresses_are_taken() {
        for good in ["http://127.0.0.1:8088", "https://enclave.example/", "http://[::1]:1/prefix"] {
            Client::new(good, None).unwrap();
        }
        for bad in ["", "127.0.0.1:8088", "ftp://x", "http://user:pw@x", "http://x/?a=b", "http://x/#a", "file:///etc"]
        {
            assert!(matches!(Client::new(bad, None), Err(ClientError::BaseUrl { .. })), "{bad}");
        }
    }

    #[test]
    fn a_key_with_a_line_break_is_refused_and_never_shown() {
        let error = Client::new(DEFAULT_BASE_URL, Some("ek_a\r\nHost: evil".into())).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("evil"));
        let client = Client::new(DEFAULT_BASE_URL, Some("ek_canary".into())).unwrap();
        assert!(!format!("{client:?}{:?}", client.http).contains("canary"));
    }

    #[test]
    fn only_plain_http_over_a_network_is_in_the_clear() {
        for (base, clear) in [
            ("http://127.8.8.8", false),
            ("http://localhost", false),
            ("http://[::ffff:127.0.0.1]", false),
            ("https://enclave.example", false),
            ("http://enclave.example", true),
            ("http://10.0.0.1", true),
        ] {
            assert_eq!(Client::new(base, None).unwrap().is_in_clear(), clear, "{base}");
        }
    }
}
