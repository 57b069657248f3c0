//! `enclave fleet`: one program many times, over the REST API.

mod args;
mod follow;

use std::{io::Write, process::ExitCode};

use anyhow::Context;
use clap::{Args, Subcommand};
use client::Client;
use wire::{Fleet, FleetId, FleetPhase};

use crate::{
    fleet::args::RunArgs,
    remote::{shown, told},
    run::terminal::plain,
};

/// Run one program many times, with an input each.
#[derive(Args, Debug)]
pub(crate) struct FleetArgs {
    #[command(subcommand)]
    command: FleetCommand,
    /// Server to talk to, http://127.0.0.1:8088 for example
    #[arg(long = "server", alias = "url", value_name = "URL", env = client::BASE_URL_VARIABLE, global = true)]
    url: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum FleetCommand {
    /// Run a program once for each input, and leave with 0 if the fleet succeeded
    ///
    /// Each member finds its input in /workspace/input.json and as enclave.input. The fleet runs on the server that --server or
    /// ENCLAVE_BASE_URL names, with the key in ENCLAVE_API_KEY; without one, a server is started for it and removed
    /// afterwards. stdout has one line for each member in the end: its number, what became of it, and the JSON that it gave
    /// to enclave.result. What happens meanwhile is on stderr. Ctrl-C cancels the fleet and waits until its members have
    /// ended.
    #[command(after_help = args::EXIT_CODES)]
    Run(Box<RunArgs>),
    /// List fleets, newest first
    List,
    /// Show a fleet
    Show {
        /// Its id
        id: FleetId,
    },
    /// Cancel a fleet: what runs is ended, what waits never starts
    Cancel {
        /// Its id
        id: FleetId,
    },
}

pub(crate) async fn run(args: FleetArgs) -> anyhow::Result<ExitCode> {
    let url = args.url.filter(|url| !url.is_empty());
    let client = |url: Option<String>| -> anyhow::Result<Client> {
        Ok(Client::new(url.as_deref().unwrap_or(client::DEFAULT_BASE_URL), client::key_from_env()?)?)
    };
    let text = match args.command {
        FleetCommand::Run(run) => return follow::run(*run, url, args.json).await,
        FleetCommand::List => list(&client(url)?, args.json).await?,
        FleetCommand::Show { id } => {
            let client = client(url)?;
            one(&client.fleet(id).await.map_err(|error| told(&client, &error))?, args.json)?
        }
        FleetCommand::Cancel { id } => {
            let client = client(url)?;
            one(&client.cancel_fleet(id).await.map_err(|error| told(&client, &error))?, args.json)?
        }
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("the answer cannot be written")?;
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client, json: bool) -> anyhow::Result<String> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = client.fleets(cursor.as_deref()).await.map_err(|error| told(client, &error))?;
        all.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    shown(&all, json, || all.iter().map(line).collect())
}

fn one(fleet: &Fleet, json: bool) -> anyhow::Result<String> {
    shown(fleet, json, || line(fleet))
}

fn line(fleet: &Fleet) -> String {
    format!("{}  {}  {}  {}\n", fleet.id, plain(&fleet.name), verdict(fleet), fleet.created_at)
}

/// What became of it, in words.
fn verdict(fleet: &Fleet) -> String {
    let counts = &fleet.counts;
    let reason = fleet.reason.map(|reason| format!(" ({})", reason.as_str())).unwrap_or_default();
    let mut parts = Vec::new();
    for (count, word) in [
        (counts.queued, "queued"),
        (counts.pending, "pending"),
        (counts.running, "running"),
        (counts.succeeded, "succeeded"),
        (counts.failed, "failed"),
        (counts.killed, "killed"),
        (counts.skipped, "skipped"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    format!("{}{reason}: {} of {}", fleet.phase.as_str(), parts.join(", "), counts.total)
}

/// The code that says what became of a fleet.
fn exit_code(fleet: &Fleet) -> u8 {
    match fleet.phase {
        FleetPhase::Succeeded => 0,
        FleetPhase::Failed => 1,
        FleetPhase::Killed if fleet.reason == Some(wire::FleetEndReason::Cancelled) => crate::run::exit::CANCELLED,
        FleetPhase::Killed => crate::run::exit::KILLED,
        // It was not followed to its end.
        FleetPhase::Pending | FleetPhase::Running => crate::run::exit::UNREACHABLE,
    }
}
