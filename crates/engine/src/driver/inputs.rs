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

use crate::{
    spool::{Entry, Kind, Overlap, Spool, refuse_overlaps},
    uploads::Taken,
};

/// The least that a sandbox takes of files in a second, for how long it is waited.
const BYTES_A_SECOND: u64 = 4 << 20;
/// The same, of small ones.
const FILES_A_SECOND: u64 = 200;

/// The request's own files.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// In the request.
    pub(super) inline: Vec<InlineFile>,
    /// Beside it.
    pub(super) uploads: Option<Taken>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Inputs {
    files: Files,
    tree: Option<Spool>,
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
    #[error("the spool")]
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
    #[error("the spool")]
    Spool(#[from] io::Error),
}

impl Inputs {
    /// The request's files alone.
    pub(super) fn of(files: Files) -> Self {
        Self { files, tree: None, entries: Vec::new(), entrypoint: None }
    }

    /// With a tree, out of which comes the program.
    pub(super) async fn with(mut files: Files, mut tree: Spool, program: &str) -> Result<(Self, String), NoProgram> {
        let replaced = |entry: &&Entry| files.paths().any(|path| path == entry.path);
        let mut entries: Vec<_> = tree.entries().iter().filter(|entry| !replaced(entry)).cloned().collect();
        let paths = entries.iter().map(|entry| entry.path.as_str()).chain(files.paths());
        refuse_overlaps(paths).map_err(|Overlap(path)| NoProgram::Overlap(path))?;
        let name = || program.to_owned();
        let code = if let Some(own) = files.read(program, MAX_CODE_BYTES + 1).await? {
            own
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
        let count = (self.entries.len() + self.files.paths().count()) as u64;
        Duration::from_secs(bytes.saturating_add(self.files.bytes()) / BYTES_A_SECOND + count / FILES_A_SECOND)
    }

    /// One event for each of the request's files.
    pub(super) fn drafts(&self, session: SessionId, now: Timestamp) -> Vec<Draft> {
        let inline = self.files.inline.iter().map(|file| {
            let sha256 = hex::encode(Sha256::digest(&file.content));
            json!({ "path": file.path, "bytes": file.content.len(), "sha256": sha256 })
        });
        let uploads = self.files.uploads.iter().flat_map(|taken| taken.spool.entries().iter().zip(&taken.digests));
        let uploads =
            uploads.map(|(entry, sha256)| json!({ "path": entry.path, "bytes": entry.size, "sha256": sha256 }));
        inline.chain(uploads).map(|data| Draft::platform(now, AuditType::FileWritten, session, data)).collect()
    }

    /// Sends everything.
    pub(super) async fn send(&mut self, sender: &mut Sender) -> Result<(), SendError> {
        for file in &self.files.inline {
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
        if let Some(Taken { spool, .. }) = &mut self.files.uploads {
            let entries = spool.entries().to_vec();
            put(sender, spool, &entries).await?;
        }
        if let Some(tree) = &mut self.tree {
            put(sender, tree, &self.entries).await?;
        }
        Ok(())
    }
}

impl Files {
    fn paths(&self) -> impl Iterator<Item = &str> + Clone {
        let uploads = self.uploads.iter().flat_map(|taken| taken.spool.entries());
        self.inline.iter().map(|file| file.path.as_str()).chain(uploads.map(|entry| entry.path.as_str()))
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> u64 {
        let inline: u64 = self.inline.iter().map(|file| file.content.len() as u64).sum();
        inline.saturating_add(self.uploads.as_ref().map_or(0, |taken| taken.spool.bytes()))
    }

    /// What is in one of them, or as much of it.
    async fn read(&mut self, path: &str, most: usize) -> io::Result<Option<Vec<u8>>> {
        if let Some(file) = self.inline.iter().find(|file| file.path == path) {
            return Ok(Some(file.content.clone()));
        }
        let Some(Taken { spool, .. }) = &mut self.uploads else { return Ok(None) };
        match spool.entries().iter().find(|entry| entry.path == path).cloned() {
            Some(entry) => spool.read(&entry, 0, most).await.map(Some),
            None => Ok(None),
        }
    }
}

/// Sends files out of a spool.
async fn put(sender: &mut Sender, spool: &mut Spool, entries: &[Entry]) -> Result<(), SendError> {
    for entry in entries {
        let kind = match entry.kind {
            Kind::File => PutKind::File { mode: 0o644 },
            Kind::Executable => PutKind::File { mode: 0o755 },
            Kind::Link => PutKind::Link,
        };
        let mut at = 0;
        loop {
            let data = spool.read(entry, at, PUT_CHUNK_BYTES).await?;
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
