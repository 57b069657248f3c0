//! Artifacts of a session, saved on this machine.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use client::{Client, ClientError};
use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};
use wire::{Artifact, SessionId};

/// Why an artifact was not saved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SaveError {
    #[error("its path leads elsewhere")]
    Path,
    #[error("{0}")]
    File(#[from] io::Error),
    #[error("{}", .0.chain())]
    Client(#[from] ClientError),
    #[error("what came is not what was collected")]
    Digest,
}

/// Saves all of them below a directory, and gives those that were not. Nothing that is there is replaced.
pub(crate) async fn save<'a>(
    client: &Client,
    session: SessionId,
    artifacts: impl IntoIterator<Item = &'a Artifact>,
    directory: &Path,
) -> Vec<(&'a Artifact, SaveError)> {
    let mut failed = Vec::new();
    for artifact in artifacts {
        if let Err(error) = one(client, session, artifact, directory).await {
            failed.push((artifact, error));
        }
    }
    failed
}

async fn one(client: &Client, session: SessionId, artifact: &Artifact, directory: &Path) -> Result<(), SaveError> {
    // The name was a sandbox's before it was a server's.
    protocol::path::check(&artifact.path).map_err(|_| SaveError::Path)?;
    let place = directory.join(&artifact.path);
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = File::options().write(true).create_new(true).open(&place)?;
    let saved = fill(client, session, artifact, &mut file).await;
    if saved.is_err() {
        // Half of it is of no use to anybody.
        let _ = fs::remove_file(&place);
    }
    saved
}

async fn fill(client: &Client, session: SessionId, artifact: &Artifact, file: &mut File) -> Result<(), SaveError> {
    let mut content = Box::pin(client.artifact(session, &artifact.path).await?);
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    while let Some(piece) = content.next().await {
        let piece = piece?;
        bytes += piece.len() as u64;
        if bytes > artifact.size {
            return Err(SaveError::Digest);
        }
        hash.update(&piece);
        file.write_all(&piece)?;
    }
    if hex::encode(hash.finalize()) == artifact.sha256 { Ok(()) } else { Err(SaveError::Digest) }
}
