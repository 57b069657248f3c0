//! What the commands have in common that call a server and print its answer.

use anyhow::anyhow;
use clap::Args;
use client::{Client, ClientError};
use serde::Serialize;

use crate::{process, run::report};

/// Where the server is, and how its answer is printed.
#[derive(Args, Debug)]
pub(crate) struct ServerArgs {
    /// Server to talk to [default: http://127.0.0.1:8088]
    #[arg(long, value_name = "URL", env = client::BASE_URL_VARIABLE, global = true)]
    server: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl ServerArgs {
    /// A client of it, with the key of the environment.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        process::harden();
        let url = self.server.as_deref().filter(|url| !url.is_empty());
        Ok(Client::new(url.unwrap_or(client::DEFAULT_BASE_URL), client::key_from_env()?)?)
    }
}

/// An answer as JSON, or in lines for people.
pub(crate) fn shown<T: Serialize>(what: &T, json: bool, lines: impl FnOnce() -> String) -> anyhow::Result<String> {
    if json { Ok(format!("{}\n", serde_json::to_string(what)?)) } else { Ok(lines()) }
}

/// What the server said, every fault of it, or that there is none.
pub(crate) fn told(client: &Client, error: &ClientError) -> anyhow::Error {
    anyhow!("{}", report::told(client, error).join("\n"))
}
