//! `enclave files` and `enclave artifacts`: what a session has in its working directory, and what it has left.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use client::{Client, ClientError, ListFiles, LocalFile};
use futures::{Stream, StreamExt as _};
use wire::{Artifact, FileEntry, FileKind, SessionId};

use crate::{
    remote::{ServerArgs, shown, told},
    run::artifacts,
};

/// List, get, put and remove files of a session that runs.
///
/// The server is the one that --server or ENCLAVE_BASE_URL names, with the key in ENCLAVE_API_KEY. Paths are those below
/// /workspace.
#[derive(Args, Debug)]
pub(crate) struct FilesArgs {
    #[command(subcommand)]
    command: FilesCommand,
    #[command(flatten)]
    server: ServerArgs,
}

/// List and get the files that a session has left.
///
/// The server is the one that --server or ENCLAVE_BASE_URL names, with the key in ENCLAVE_API_KEY.
#[derive(Args, Debug)]
pub(crate) struct ArtifactsArgs {
    #[command(subcommand)]
    command: ArtifactsCommand,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum FilesCommand {
    /// List a directory
    List {
        /// The session's id
        session: SessionId,
        /// The directory [default: /workspace itself]
        path: Option<String>,
        /// With what is in directories
        #[arg(long)]
        recursive: bool,
    },
    /// Copy a file to this machine
    Get {
        /// The session's id
        session: SessionId,
        /// The file
        path: String,
        /// Where to put it; - for standard output, which must not be a terminal [default: its name, here]
        to: Option<PathBuf>,
    },
    /// Copy a file of this machine into the session; one that is there is replaced
    Put {
        /// The session's id
        session: SessionId,
        /// The file
        file: PathBuf,
        /// Its path there [default: its name]
        path: Option<String>,
    },
    /// Remove a file, a link or an empty directory
    Remove {
        /// The session's id
        session: SessionId,
        /// What to remove
        path: String,
    },
}

#[derive(Debug, Subcommand)]
enum ArtifactsCommand {
    /// List what the session left
    List {
        /// The session's id
        session: SessionId,
    },
    /// Copy artifacts to this machine; nothing that is there is replaced
    Get {
        /// The session's id
        session: SessionId,
        /// Which [default: all of them]
        paths: Vec<String>,
        /// Directory to put them into [default: the current one]
        #[arg(long, value_name = "DIR", default_value = ".", hide_default_value = true)]
        to: PathBuf,
    },
}

pub(crate) async fn files(args: FilesArgs) -> anyhow::Result<ExitCode> {
    let (client, json) = (args.server.client()?, args.server.json);
    let told = |error: ClientError| told(&client, &error);
    match args.command {
        FilesCommand::List { session, path, recursive } => {
            let mut which = ListFiles { path, recursive, cursor: None };
            let mut all = Vec::new();
            loop {
                let page = client.files(session, &which).await.map_err(told)?;
                all.extend(page.items);
                which.cursor = page.next_cursor;
                if which.cursor.is_none() {
                    break;
                }
            }
            print(&shown(&all, json, || all.iter().map(line).collect())?)?;
        }
        FilesCommand::Get { session, path, to } => {
            let to = to.or_else(|| path.rsplit('/').next().map(PathBuf::from)).context("the file has no name")?;
            let is_stdout = to.as_os_str() == "-";
            if is_stdout && io::stdout().is_terminal() {
                bail!("a terminal obeys what is in a file: name a file, or lead standard output somewhere else");
            }
            let content = client.file(session, &path).await.map_err(told)?;
            if is_stdout {
                copy(content, &mut io::stdout().lock()).await.map_err(|error| error.told(&client))?;
            } else {
                save(content, &to, &client).await?;
            }
        }
        FilesCommand::Put { session, file, path } => {
            let name = || file.file_name().and_then(|name| name.to_str()).map(ToOwned::to_owned);
            let path = path.or_else(name).context("the file has no name: say which path it is to have")?;
            let executable = file.metadata().is_ok_and(|of| of.permissions().mode() & 0o111 != 0);
            let stored =
                client.write_file(session, &LocalFile { local: file, path, executable }).await.map_err(told)?;
            print(&shown(&stored, json, || format!("{}  {}  {}\n", stored.sha256, stored.size, stored.path))?)?;
        }
        FilesCommand::Remove { session, path } => client.remove_file(session, &path).await.map_err(told)?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn artifacts(args: ArtifactsArgs) -> anyhow::Result<ExitCode> {
    let (client, json) = (args.server.client()?, args.server.json);
    let told = |error: ClientError| told(&client, &error);
    match args.command {
        ArtifactsCommand::List { session } => {
            let all = client.artifacts(session).await.map_err(told)?.items;
            print(&shown(&all, json, || all.iter().map(artifact_line).collect())?)?;
        }
        ArtifactsCommand::Get { session, paths, to } => {
            let all = client.artifacts(session).await.map_err(told)?.items;
            if let Some(absent) = paths.iter().find(|path| !all.iter().any(|artifact| artifact.path == **path)) {
                bail!("the session has left no {absent:?}");
            }
            let wanted: Vec<_> =
                all.iter().filter(|artifact| paths.is_empty() || paths.contains(&artifact.path)).collect();
            let failed = artifacts::save(&client, session, wanted.iter().copied(), &to).await;
            let saved = wanted.iter().filter(|artifact| !failed.iter().any(|(other, _)| other == *artifact));
            let saved: Vec<_> = saved.collect();
            print(&shown(&saved, json, || saved.iter().map(|artifact| artifact_line(artifact)).collect())?)?;
            if !failed.is_empty() {
                let lines: Vec<_> =
                    failed.iter().map(|(artifact, error)| format!("{}: {error}", artifact.path)).collect();
                bail!("not saved: {}", lines.join("\n"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Why a content was not copied.
enum CopyError {
    Here(io::Error),
    There(ClientError),
}

impl CopyError {
    fn told(self, client: &Client) -> anyhow::Error {
        match self {
            Self::Here(error) => anyhow!(error).context("it cannot be written"),
            Self::There(error) => told(client, &error),
        }
    }
}

async fn copy(
    content: impl Stream<Item = Result<bytes::Bytes, ClientError>>,
    to: &mut impl Write,
) -> Result<(), CopyError> {
    futures::pin_mut!(content);
    while let Some(piece) = content.next().await {
        to.write_all(&piece.map_err(CopyError::There)?).map_err(CopyError::Here)?;
    }
    to.flush().map_err(CopyError::Here)
}

/// Writes a file that is not there yet. Half of one is not left.
async fn save(
    content: impl Stream<Item = Result<bytes::Bytes, ClientError>>,
    to: &Path,
    client: &Client,
) -> anyhow::Result<()> {
    let opened = File::options().write(true).create_new(true).open(to);
    let mut file = opened.with_context(|| format!("{} cannot be made", to.display()))?;
    let copied = copy(content, &mut file).await;
    if copied.is_err() {
        let _ = std::fs::remove_file(to);
    }
    copied.map_err(|error| error.told(client))
}

fn print(text: &str) -> anyhow::Result<()> {
    io::stdout().lock().write_all(text.as_bytes()).context("the answer cannot be written")
}

fn line(entry: &FileEntry) -> String {
    let kind = match entry.kind {
        FileKind::File => '-',
        FileKind::Directory => 'd',
        FileKind::Link => 'l',
        FileKind::Other => '?',
    };
    format!("{kind} {:04o} {:>12}  {}  {}\n", entry.mode, entry.size, entry.modified_at, entry.path)
}

fn artifact_line(artifact: &Artifact) -> String {
    format!("{}  {:>12}  {}\n", artifact.sha256, artifact.size, artifact.path)
}
