//! `enclave trigger`: triggers of an org, over the REST API.

use std::{
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use client::{Client, ClientError};
use wire::{CreateTrigger, Trigger, TriggerId, TriggerKind, TriggerRun, UpdateTrigger};

use crate::remote::{ServerArgs, shown, told};

/// More than the server takes.
const MAX_REQUEST: u64 = 4 << 20;

/// Make, list, fire, pause and delete triggers.
///
/// A trigger starts a session on a schedule, or when another system makes a signed call. The server is the one that
/// --server or ENCLAVE_BASE_URL names, with the key in ENCLAVE_API_KEY.
#[derive(Args, Debug)]
pub(crate) struct TriggerArgs {
    #[command(subcommand)]
    command: TriggerCommand,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum TriggerCommand {
    /// Make a trigger from a request in JSON
    ///
    /// The secret of a webhook trigger is printed this once.
    Create {
        /// File with the request; - for standard input
        file: PathBuf,
    },
    /// List triggers
    List,
    /// Show the last firings of a trigger
    Runs {
        /// Its name or id
        name: String,
    },
    /// Fire a trigger now, enabled or not
    Fire {
        /// Its name or id
        name: String,
    },
    /// Pause a trigger
    Pause {
        /// Its name or id
        name: String,
    },
    /// Let a paused trigger fire again
    Resume {
        /// Its name or id
        name: String,
    },
    /// Delete a trigger; its sessions go on
    Delete {
        /// Its name or id
        name: String,
    },
}

pub(crate) async fn run(args: TriggerArgs) -> anyhow::Result<ExitCode> {
    let (client, json) = (args.server.client()?, args.server.json);
    let told = |error: ClientError| told(&client, &error);
    let text = match args.command {
        TriggerCommand::Create { file } => {
            let made = client.create_trigger(&read(&file)?).await.map_err(told)?;
            let secret = made.secret.as_ref().map(|secret| format!("secret: {secret}\n")).unwrap_or_default();
            shown(&made, json, || format!("{}{secret}", line(&made.trigger)))?
        }
        TriggerCommand::List => {
            let all = all(&client).await.map_err(told)?;
            if all.is_empty() && !json {
                eprintln!("there are no triggers; enclave trigger create makes one");
            }
            shown(&all, json, || all.iter().map(line).collect())?
        }
        TriggerCommand::Runs { name } => {
            let runs = client.trigger_runs(find(&client, &name).await?).await.map_err(told)?;
            shown(&runs, json, || runs.items.iter().map(run_line).collect())?
        }
        TriggerCommand::Fire { name } => {
            let run = client.fire_trigger(find(&client, &name).await?).await.map_err(told)?;
            shown(&run, json, || run_line(&run))?
        }
        TriggerCommand::Pause { name } => enable(&client, &name, false, json).await?,
        TriggerCommand::Resume { name } => enable(&client, &name, true, json).await?,
        TriggerCommand::Delete { name } => {
            let gone = client.delete_trigger(find(&client, &name).await?).await.map_err(told)?;
            shown(&gone, json, || line(&gone))?
        }
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("the answer cannot be written")?;
    Ok(ExitCode::SUCCESS)
}

async fn enable(client: &Client, name: &str, enabled: bool, json: bool) -> anyhow::Result<String> {
    let change = UpdateTrigger { enabled: Some(enabled), ..UpdateTrigger::default() };
    let changed = client.update_trigger(find(client, name).await?, &change).await;
    let changed = changed.map_err(|error| told(client, &error))?;
    shown(&changed, json, || line(&changed))
}

/// A request, with every fault of its shape.
fn read(file: &Path) -> anyhow::Result<CreateTrigger> {
    let mut bytes = Vec::new();
    if file.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_REQUEST).read_to_end(&mut bytes).context("standard input cannot be read")?;
    } else {
        let opened = std::fs::File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
        opened
            .take(MAX_REQUEST)
            .read_to_end(&mut bytes)
            .with_context(|| format!("{} cannot be read", file.display()))?;
    }
    let (request, faults) = CreateTrigger::parse(&bytes).context("the request is not JSON")?;
    if faults.is_empty() {
        return Ok(request);
    }
    let lines: Vec<_> = faults.iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect();
    bail!("{}", lines.join("\n"))
}

async fn all(client: &Client) -> Result<Vec<Trigger>, ClientError> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let page = client.triggers(cursor.as_deref()).await?;
        all.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(all);
        }
    }
}

/// The trigger of that name or id.
async fn find(client: &Client, name: &str) -> anyhow::Result<TriggerId> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let all = all(client).await.map_err(|error| told(client, &error))?;
    let found = all.into_iter().find(|trigger| trigger.name == name);
    found.map(|trigger| trigger.id).with_context(|| format!("there is no trigger {name:?}"))
}

fn line(trigger: &Trigger) -> String {
    let when = match (&trigger.kind, trigger.next_fire_at) {
        _ if !trigger.enabled => "paused".to_owned(),
        (TriggerKind::Schedule { cron, timezone }, Some(next)) => format!("{cron} {timezone}, next {next}"),
        (TriggerKind::Schedule { cron, timezone }, None) => format!("{cron} {timezone}"),
        (TriggerKind::Webhook, _) => format!("POST /v1/hooks/{}", trigger.id),
    };
    format!("{}  {}  {when}\n", trigger.id, trigger.name)
}

fn run_line(run: &TriggerRun) -> String {
    let what = run.session_id.map(|id| id.to_string()).or_else(|| run.detail.clone()).unwrap_or_default();
    format!("{}  {}  {}  {what}\n", run.due_at, run.cause.as_str(), run.outcome.as_str())
}
