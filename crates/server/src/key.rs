//! `enclave key`: API keys, managed by whoever has the data directory in hand, whether or not a server runs on it.

use std::{io::Write, process::ExitCode};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use engine::Keys;
use model::access::{Subject, role_allows};
use secrecy::ExposeSecret;
use wire::{KeyId, Role, Scope};

use crate::{
    data_dir::DataDir,
    platform, process,
    settings::{
        Layers, State,
        flags::{ConfigFlag, StateFlags},
    },
};

/// What an org or a key may be called, in characters.
const NAME_CHARS: usize = 100;

/// Make, list and revoke API keys.
///
/// Works on the data directory itself: run it as the user that the server runs as. A running server honours the change at
/// once.
#[derive(Args, Debug)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
    #[command(flatten)]
    config: ConfigFlag,
    #[command(flatten)]
    flags: StateFlags,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key; it is printed once, alone on stdout
    ///
    /// The org is made if there is none of that name. Only a keyed hash of the secret is stored: a key that is lost is
    /// revoked and replaced.
    Create {
        /// Org that the key acts for
        #[arg(long, value_name = "NAME", value_parser = name)]
        org: String,
        /// What the key may do: viewer, developer, admin or owner
        #[arg(long)]
        role: Role,
        /// Narrow the key to this scope of its role, sessions:read for example; may be repeated
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<Scope>,
        /// What to call the key in lists
        #[arg(long, value_parser = name, default_value = "cli")]
        name: String,
    },
    /// List keys, never their secrets
    List {
        /// Only those of this org
        #[arg(long, value_name = "NAME")]
        org: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key; it stops working at once
    Revoke {
        /// Its id: key_…
        id: KeyId,
    },
}

/// A key in the output of `list --json`.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    id: KeyId,
    org: String,
    name: String,
    role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<Scope>>,
    created_at: wire::Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<wire::Timestamp>,
}

pub(crate) async fn run(args: KeyArgs) -> anyhow::Result<ExitCode> {
    process::harden();
    let state = State::read(&Layers::load(args.config.config.as_deref(), args.flags.0)?)?;
    let dir = match &args.command {
        // A key may be made before the first start.
        KeyCommand::Create { .. } => DataDir::prepare(&state.data_dir, state.is_default)?,
        KeyCommand::List { .. } | KeyCommand::Revoke { .. } => {
            DataDir::existing(&state.data_dir)?;
            DataDir::prepare(&state.data_dir, state.is_default)?
        }
    };
    let (keys, store) = platform::open_keys(&state, &dir).await?;
    let done = match args.command {
        KeyCommand::Create { org, role, scopes, name } => create(&keys, &org, role, scopes, &name).await,
        KeyCommand::List { org, json } => list(&keys, org.as_deref(), json).await,
        KeyCommand::Revoke { id } => revoke(&keys, id).await,
    };
    store.close().await;
    done.map(|()| ExitCode::SUCCESS)
}

async fn create(keys: &Keys, org: &str, role: Role, scopes: Vec<Scope>, name: &str) -> anyhow::Result<()> {
    if let Some(scope) = scopes.iter().find(|scope| !role_allows(role, **scope)) {
        bail!("a key of role {role} cannot have the scope {scope}: scopes narrow a role, they add nothing to it");
    }
    let id = keys.ensure_org(org).await.context("the org cannot be made")?;
    let scopes = (!scopes.is_empty()).then_some(scopes);
    let key = keys.create(id, name, role, scopes, Subject::Operator).await.context("the key cannot be made")?;
    eprintln!("{} of org {org} ({id}), role {role}; this is the only time that it is shown:", key.id);
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", key.presented.expose_secret()).context("the key cannot be written")?;
    Ok(())
}

async fn list(keys: &Keys, org: Option<&str>, json: bool) -> anyhow::Result<()> {
    let orgs = keys.orgs().await.context("the orgs cannot be read")?;
    if let Some(name) = org
        && orgs.iter().all(|org| org.name != name)
    {
        bail!("there is no org {name}");
    }
    let mut listed = Vec::new();
    for found in orgs.into_iter().filter(|found| org.is_none_or(|name| found.name == name)) {
        for key in keys.list(found.id).await.context("the keys cannot be read")? {
            listed.push(Listed {
                id: key.id,
                org: found.name.clone(),
                name: key.name,
                role: key.role,
                scopes: key.scopes,
                created_at: key.created_at,
                revoked_at: key.revoked_at,
            });
        }
    }
    if !json && listed.is_empty() {
        eprintln!("there are no keys; enclave key create makes one");
    }
    let text = if json { format!("{}\n", serde_json::to_string(&listed)?) } else { listed.iter().map(line).collect() };
    std::io::stdout().lock().write_all(text.as_bytes()).context("the keys cannot be written")
}

fn line(key: &Listed) -> String {
    let scopes = key.scopes.as_ref().map_or_else(String::new, |scopes| {
        let words: Vec<_> = scopes.iter().map(|scope| scope.as_str()).collect();
        format!("  only {}", words.join(" "))
    });
    let state = key.revoked_at.map_or_else(|| "works".to_owned(), |at| format!("revoked {at}"));
    format!("{}  {}  {}  {}  made {}  {state}{scopes}\n", key.id, key.org, key.role, key.name, key.created_at)
}

async fn revoke(keys: &Keys, id: KeyId) -> anyhow::Result<()> {
    let org = keys.owner(id).await.context("the key cannot be read")?;
    let org = org.with_context(|| format!("there is no key {id}"))?;
    keys.revoke(org, id, Subject::Operator).await.with_context(|| format!("{id} cannot be revoked"))?;
    eprintln!("{id} is revoked");
    Ok(())
}

/// Names are shown in lists and logs: nothing in them may act on a terminal.
fn name(text: &str) -> Result<String, String> {
    let good = !text.trim().is_empty() && text.chars().count() <= NAME_CHARS && !text.chars().any(char::is_control);
    if good { Ok(text.to_owned()) } else { Err(format!("a name has 1 to {NAME_CHARS} printable characters")) }
}
