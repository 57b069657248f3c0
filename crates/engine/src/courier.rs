//! What carries webhook messages out: the engine knows no HTTP.

use std::net::IpAddr;

use async_trait::async_trait;
use model::webhook::WebhookUrl;

/// Takes a message to its receiver, once.
///
/// An implementation decides each address before it connects to it, and connects to that address and to no other; it
/// follows no redirect, bounds the time that an attempt takes, and what it reads of an answer.
#[async_trait]
pub trait Courier: Send + Sync + 'static {
    /// One attempt.
    async fn carry(&self, letter: &Letter) -> Result<Answer, Undelivered>;
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Where to.
    pub url: WebhookUrl,
    /// Its headers, signatures among them.
    pub headers: Vec<(&'static str, String)>,
    /// What it says, JSON.
    pub body: String,
}

/// What the receiver answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The beginning of the body.
    pub body: Vec<u8>,
}

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// Its address is one that the deployment sends nothing to.
    #[error("{0}")]
    Refused(String),
    /// Its name has no address.
    #[error("{0}")]
    Unresolved(String),
    /// Nobody answers at its address.
    #[error("no connection to {address}: {why}")]
    Unconnected {
        /// The last address that was tried, if there was one.
        address: IpAddr,
        /// Why.
        why: String,
    },
    /// TLS failed: its certificate is not one for this name, for example.
    #[error("no TLS with it: {0}")]
    Tls(String),
    /// It did not answer in time.
    #[error("it did not answer in time")]
    TimedOut,
    /// What it answered is not HTTP.
    #[error("it gave no answer that is HTTP")]
    NoAnswer,
}
