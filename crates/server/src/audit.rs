//! `enclave audit`: the audit log's hash chains, checked from the data directory alone.

use std::{io::Write, path::Path, process::ExitCode, sync::Arc};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use model::audit::Head;
use store::{Store, VerifyError, verify};

use crate::{
    backends::chain,
    data_dir::DataDir,
    platform,
    settings::{
        Layers, State,
        flags::{ConfigFlag, StateFlags},
    },
};

/// Check the audit log.
#[derive(Args, Debug)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
    #[command(flatten)]
    config: ConfigFlag,
    #[command(flatten)]
    flags: StateFlags,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Follow every org's hash chain from its first entry to its head
    ///
    /// Prints the head of each: keep it elsewhere, and a later check against it finds a log that was rewritten as a whole.
    /// Leaves with 1 if a chain is not what was written, and says where it breaks.
    Verify {
        /// Only this org's
        #[arg(long, value_name = "NAME")]
        org: Option<String>,
    },
}

pub(crate) async fn run(args: AuditArgs) -> anyhow::Result<ExitCode> {
    let AuditCommand::Verify { org } = args.command;
    let state = State::read(&Layers::load(args.config.config.as_deref(), args.flags.0)?)?;
    let dir = DataDir::existing(&state.data_dir)?;
    let database = state.database.clone().unwrap_or_else(|| dir.database());
    if !database.is_file() {
        bail!("{} does not exist; no server has run with it", database.display());
    }
    let store = platform::open_store(&state, &dir).await?;
    let reports = check(&store, org.as_deref()).await;
    store.close().await;
    let reports = reports?;
    if reports.is_empty() {
        match org {
            Some(name) => bail!("there is no org {name}"),
            None => eprintln!("there are no orgs, and so no log"),
        }
    }
    let mut stdout = std::io::stdout().lock();
    let mut whole = true;
    for Report { org, outcome } in &reports {
        let line = match outcome {
            Ok(head) => format!("{org}: {} entries, verified; head {}", head.seq, head.hash),
            Err(error) => {
                whole = false;
                format!("{org}: BROKEN: {}", chain(error))
            }
        };
        writeln!(stdout, "{line}").context("the report cannot be written")?;
    }
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Checks every chain of a database that no server uses any more; gives the number of entries.
pub(crate) async fn verify_all(state: &State, dir: &Path) -> anyhow::Result<u64> {
    let store = platform::open_store(state, &DataDir::existing(dir)?).await?;
    let reports = check(&store, None).await;
    store.close().await;
    let mut entries = 0;
    for Report { org, outcome } in reports? {
        entries += outcome.with_context(|| format!("org {org}"))?.seq;
    }
    Ok(entries)
}

struct Report {
    org: String,
    outcome: Result<Head, VerifyError>,
}

async fn check(store: &Arc<dyn Store>, only: Option<&str>) -> anyhow::Result<Vec<Report>> {
    let mut reports = Vec::new();
    for org in store.system().orgs().await.context("the orgs cannot be read")? {
        if only.is_none_or(|name| name == org.name) {
            reports.push(Report { outcome: verify(store.as_ref(), org.id).await, org: org.name });
        }
    }
    Ok(reports)
}
