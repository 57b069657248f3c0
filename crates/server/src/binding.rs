//! `enclave binding`: service bindings of an org, over the REST API.

mod args;
mod secret;

use std::{io::Write, process::ExitCode};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use client::{Client, ListBindings};
use wire::{Binding, BindingId, BindingSpec, CreateBinding};

use crate::{
    binding::{args::SpecArgs, secret::SecretArgs},
    remote::{ServerArgs, shown, told},
};

/// Make, list, rotate and delete service bindings.
///
/// A binding is an external service with a secret that the gateway adds to requests and no program sees. Secrets are read
/// from a file, from standard input or from the terminal, never from the command line. The server is the one that --server
/// or ENCLAVE_BASE_URL names, with the key in ENCLAVE_API_KEY.
#[derive(Args, Debug)]
pub(crate) struct BindingArgs {
    #[command(subcommand)]
    command: BindingCommand,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum BindingCommand {
    /// Make a binding
    ///
    /// Exactly one option says how the secret goes into a request. Programs find the service at
    /// http://NAME.enclave.internal.
    Create {
        /// Its name: 1 to 40 of a-z, 0-9 and -
        name: String,
        #[command(flatten)]
        spec: Box<SpecArgs>,
        #[command(flatten)]
        secret: SecretArgs,
    },
    /// List bindings, never their secrets
    List,
    /// Show a binding, never its secret
    Show {
        /// Its name or id
        name: String,
    },
    /// Replace a binding's secret; running sessions use the new one from their next call on
    Rotate {
        /// Its name or id
        name: String,
        #[command(flatten)]
        secret: SecretArgs,
    },
    /// Delete a binding and its secret; running sessions keep it until they end
    Delete {
        /// Its name or id
        name: String,
    },
}

pub(crate) async fn run(args: BindingArgs) -> anyhow::Result<ExitCode> {
    let (client, json) = (args.server.client()?, args.server.json);
    if client.is_in_clear() {
        eprintln!(
            "enclave: the server is reached by plain HTTP: key and secret can be read on the network on their way"
        );
    }
    let text = match args.command {
        BindingCommand::Create { name, spec, secret } => {
            let spec = spec.spec(name)?;
            let request = CreateBinding { spec, secret: secret.read()? };
            one(&client.create_binding(&request).await.map_err(|error| told(&client, &error))?, json)?
        }
        BindingCommand::List => list(&client, json).await?,
        BindingCommand::Show { name } => {
            let found = find(&client, &name).await?;
            if json { one(&found, true)? } else { format!("{}\n", serde_json::to_string_pretty(&found)?) }
        }
        BindingCommand::Rotate { name, secret } => {
            let id = find(&client, &name).await?.id;
            let secret = secret.read()?;
            one(&client.rotate_binding(id, &secret).await.map_err(|error| told(&client, &error))?, json)?
        }
        BindingCommand::Delete { name } => {
            let id = find(&client, &name).await?.id;
            one(&client.delete_binding(id).await.map_err(|error| told(&client, &error))?, json)?
        }
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("the answer cannot be written")?;
    Ok(ExitCode::SUCCESS)
}

/// The binding of that name or id.
async fn find(client: &Client, name: &str) -> anyhow::Result<Binding> {
    if let Ok(id) = name.parse::<BindingId>() {
        return client.binding(id).await.map_err(|error| told(client, &error));
    }
    let which = ListBindings { name: Some(name.to_owned()), ..ListBindings::default() };
    let found = client.bindings(&which).await.map_err(|error| told(client, &error))?;
    match found.items.into_iter().next() {
        Some(binding) => Ok(binding),
        None => bail!("there is no binding {name:?}"),
    }
}

async fn list(client: &Client, json: bool) -> anyhow::Result<String> {
    let mut all = Vec::new();
    let mut which = ListBindings { limit: Some(100), ..ListBindings::default() };
    loop {
        let page = client.bindings(&which).await.map_err(|error| told(client, &error))?;
        all.extend(page.items);
        which.cursor = page.next_cursor;
        if which.cursor.is_none() {
            break;
        }
    }
    if all.is_empty() && !json {
        eprintln!("there are no bindings; enclave binding create makes one");
    }
    shown(&all, json, || all.iter().map(line).collect())
}

fn one(binding: &Binding, json: bool) -> anyhow::Result<String> {
    shown(binding, json, || line(binding))
}

fn line(binding: &Binding) -> String {
    let BindingSpec { name, kind, upstream, .. } = &binding.spec;
    format!(
        "{}  {name}  {}  {}  secret {} of {}\n",
        binding.id,
        kind.as_str(),
        upstream.url,
        binding.secret_version,
        binding.rotated_at
    )
}
