//! Why a call did not do what it should.

use std::{error::Error, io, path::PathBuf};

use wire::Problem;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not one of a server.
    #[error("the base URL cannot be used: {reason}")]
    BaseUrl {
        /// Why not.
        reason: &'static str,
    },
    /// The API key holds characters that no key has.
    #[error("the API key cannot be sent in a header")]
    Key,
    /// The server refused, and said why.
    #[error("{} ({}): {}", .0.title, .0.code.as_str(), .0.detail)]
    Problem(Box<Problem>),
    /// Something answered that is not this API: a proxy, or another server.
    #[error("unexpected answer {status}: {excerpt}")]
    Unexpected {
        /// The HTTP status.
        status: u16,
        /// The beginning of the body, without control characters.
        excerpt: String,
    },
    /// A path that leads out of where it begins, or has an empty part.
    #[error("{0:?} is no path below /workspace")]
    Path(String),
    /// A file that was to be sent cannot be read.
    #[error("{} cannot be read", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The server could not be reached, or the connection broke.
    #[error("cannot talk to the server")]
    Transport(#[source] reqwest::Error),
    /// An answer or a frame that this version of the contract does not have.
    #[error("cannot read {what}")]
    Decode {
        /// What was being read.
        what: &'static str,
        /// Why it cannot be read.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// An answer or a frame that is larger than any honest one.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What was being read.
        what: &'static str,
        /// The most that is read.
        limit: usize,
    },
    /// The stream was cut, and could not be taken up again.
    #[error("the stream was cut, and {tries} tries to take it up again failed")]
    StreamLost {
        /// How often it was tried.
        tries: u32,
        /// What the last try met, if it was not just another cut.
        #[source]
        source: Option<Box<ClientError>>,
    },
}

impl ClientError {
    /// The server's own words, if it refused.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::StreamLost { source, .. } => source.as_deref().and_then(Self::problem),
            Self::BaseUrl { .. }
            | Self::Key
            | Self::Path(_)
            | Self::File { .. }
            | Self::Unexpected { .. }
            | Self::Transport(_)
            | Self::Decode { .. }
            | Self::TooLarge { .. } => None,
        }
    }

    /// The message and those of its causes, on one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
