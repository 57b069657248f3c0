//! What is put into a session's working directory before its program starts: the request's files, and the tree of its
//! repository.

use std::{io, time::Duration};

use backend::channel::{ChannelError, Sender};
use model::{
    audit::Draft,
    session::{InlineFile, MAX_CODE_BYTES},
};
use protocol::{HostFrame, PUT_CHUNK_BYTES, Put, PutKind};
use serde_json::json;
use sha2::{Digest, Sha256};
use wire::{AuditType, SessionId, Timestamp};

use super::clone::tree::{Entry, Kind, Overlap, Tree, refuse_overlaps};

/// The least that a sandbox takes of files in a second, for how long it is waited.
const BYTES_A_SECOND: u64 = 4 << 20;
/// The same, of small ones.
const FILES_A_SECOND: u64 = 200;

/// All of it.
#[derive(Debug)]
pub(super) struct Inputs {
    files: Vec<InlineFile>,
    tree: Option<Tree>,
    /// What of the tree is put: the request's own files stand in the place of the repository's.
    entries: Vec<Entry>,
    /// The file of them that is the program.
    pub(super) entrypoint: Option<String>,
}

/// Why a file was not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("the pipe to the sandbox")]
    Channel(#[from] ChannelError),
    #[error("the spool of the clone")]
    Spool(#[from] io::Error),
}

/// Why there is no program in a repository.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoProgram {
    #[error("there is no file {0}")]
    Missing(String),
    #[error("{0} is a symbolic link")]
    Link(String),
    #[error("{0} is larger than {MAX_CODE_BYTES} bytes")]
    TooLarge(String),
    #[error("{0} is no text: not UTF-8, or with NUL in it")]
    NotText(String),
    #[error("{0} is empty")]
    Empty(String),
    #[error("{0} is a file here and a directory there, in files and in the repository")]
    Overlap(String),
    #[error("the spool of the clone")]
    Spool(#[from] io::Error),
}

impl Inputs {
    /// The request's files alone.
    pub(super) fn of(files: Vec<InlineFile>) -> Self {
        Self { files, tree: None, entries: Vec::new(), entrypoint: None }
    }

    /// With a tree, out of which comes the program.
    pub(super) async fn with(
        files: Vec<InlineFile>,
        mut tree: Tree,
        program: &str,
    ) -> Result<(Self, String), NoProgram> {
        let replaced = |entry: &&Entry| files.iter().any(|file| file.path == entry.path);
        let mut entries: Vec<_> = tree.entries().iter().filter(|entry| !replaced(entry)).cloned().collect();
        let paths = entries.iter().map(|entry| entry.path.as_str()).chain(files.iter().map(|file| file.path.as_str()));
        refuse_overlaps(paths).map_err(|Overlap(path)| NoProgram::Overlap(path))?;
        let name = || program.to_owned();
        let code = if let Some(file) = files.iter().find(|file| file.path == program) {
            file.content.clone()
        } else {
            let entry = entries.iter().find(|entry| entry.path == program);
            let entry = entry.ok_or_else(|| NoProgram::Missing(name()))?;
            match entry.kind {
                Kind::Link => return Err(NoProgram::Link(name())),
                Kind::File | Kind::Executable => tree.read(entry, 0, MAX_CODE_BYTES + 1).await?,
            }
        };
        if code.len() > MAX_CODE_BYTES {
            return Err(NoProgram::TooLarge(name()));
        }
        let code = String::from_utf8(code).ok().filter(|code| !code.contains('\0'));
        let code = code.ok_or_else(|| NoProgram::NotText(name()))?;
        if code.trim().is_empty() {
            return Err(NoProgram::Empty(name()));
        }
        // Nothing is put through a link, so that none may be there before the files.
        entries.sort_by_key(|entry| entry.kind == Kind::Link);
        Ok((Self { files, tree: Some(tree), entries, entrypoint: Some(name()) }, code))
    }

    /// How long it may take on top of a start.
    pub(super) fn patience(&self) -> Duration {
        let bytes: u64 = self.entries.iter().map(|entry| entry.size).sum();
        let inline: u64 = self.files.iter().map(|file| file.content.len() as u64).sum();
        let count = (self.entries.len() + self.files.len()) as u64;
        Duration::from_secs(bytes.saturating_add(inline) / BYTES_A_SECOND + count / FILES_A_SECOND)
    }

    /// One event for each of the request's files.
    pub(super) fn drafts(&self, session: SessionId, now: Timestamp) -> Vec<Draft> {
        let written = |file: &InlineFile| {
            let sha256 = hex::encode(Sha256::digest(&file.content));
            let data = json!({ "path": file.path, "bytes": file.content.len(), "sha256": sha256 });
            Draft::platform(now, AuditType::FileWritten, session, data)
        };
        self.files.iter().map(written).collect()
    }

    /// Sends everything.
    pub(super) async fn send(&mut self, sender: &mut Sender) -> Result<(), SendError> {
        for file in &self.files {
            let kind = PutKind::File { mode: file.mode };
            let mut rest = file.content.as_slice();
            loop {
                let (part, behind) = rest.split_at(rest.len().min(PUT_CHUNK_BYTES));
                rest = behind;
                let put = Put { path: file.path.clone(), kind, data: part.to_vec(), last: rest.is_empty() };
                sender.send(&HostFrame::Put(put)).await?;
                if rest.is_empty() {
                    break;
                }
            }
        }
        let Some(tree) = &mut self.tree else { return Ok(()) };
        for entry in &self.entries {
            let kind = match entry.kind {
                Kind::File => PutKind::File { mode: 0o644 },
                Kind::Executable => PutKind::File { mode: 0o755 },
                Kind::Link => PutKind::Link,
            };
            let mut at = 0;
            loop {
                let data = tree.read(entry, at, PUT_CHUNK_BYTES).await?;
                at += data.len() as u64;
                let last = at >= entry.size;
                sender.send(&HostFrame::Put(Put { path: entry.path.clone(), kind, data, last })).await?;
                if last {
                    break;
                }
            }
        }
        Ok(())
    }
}
