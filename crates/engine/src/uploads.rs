//! Files that come beside a request for a session: taken in before the session is made, and kept on this host's disk until
//! they are in its sandbox.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, pin_mut};
use model::{limits::Limits, session::Uploaded};
use sha2::{Digest as _, Sha256};
use tokio::{
    fs::File,
    io::AsyncWriteExt as _,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{
    Engine, FileError,
    spool::{Entry, Kind, Spool},
};

/// What all of them may take of the disk together, over all sessions that are taken in or wait for their sandbox.
pub(crate) const MAX_UPLOADED_MIB: usize = 4096;
const MIB: u64 = 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Uploads {
    entries: Vec<Entry>,
    digests: Vec<String>,
    file: Option<File>,
    bytes: u64,
    most_bytes: u64,
    budget: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

/// The same, complete, for the driver.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) spool: Spool,
    /// SHA-256 of each, hex.
    pub(crate) digests: Vec<String>,
    _held: Option<OwnedSemaphorePermit>,
}

impl Engine {
    /// For files of at most so many bytes together.
    pub fn uploads(&self, most_bytes: u64) -> Uploads {
        Uploads {
            entries: Vec::new(),
            digests: Vec::new(),
            file: None,
            bytes: 0,
            most_bytes,
            budget: Arc::clone(&self.inner.uploads),
            held: None,
        }
    }

    /// The most that the files of a session may take that asks for so much.
    pub fn disk_bytes(&self, asked: Option<u64>) -> u64 {
        asked.unwrap_or(Limits::default().disk_bytes).min(self.inner.config.maxima.disk_bytes)
    }
}

impl Uploads {
    /// Takes one in. Its path is judged with the request.
    pub async fn take<E>(
        &mut self,
        path: String,
        executable: bool,
        content: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<(), FileError>
    where
        FileError: From<E>,
    {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => Spool::file().await.map_err(|error| spooled(&error))?,
        };
        let kind = if executable { Kind::Executable } else { Kind::File };
        let (offset, mut hash) = (self.bytes, Sha256::new());
        pin_mut!(content);
        while let Some(piece) = content.next().await {
            let piece = piece?;
            self.count(piece.len() as u64)?;
            hash.update(&piece);
            file.write_all(&piece).await.map_err(|error| spooled(&error))?;
        }
        file.flush().await.map_err(|error| spooled(&error))?;
        self.file = Some(file);
        self.entries.push(Entry { path, kind, size: self.bytes - offset, offset });
        self.digests.push(hex::encode(hash.finalize()));
        Ok(())
    }

    /// What they are, a line each: two requests that differ in a file differ in this.
    pub fn describe(&self) -> String {
        let lines = self.entries.iter().zip(&self.digests);
        lines.map(|(entry, digest)| format!("{digest} {:?} {} {}\n", entry.kind, entry.size, entry.path)).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// For the decision on the request.
    pub(crate) fn uploaded(&self) -> Vec<Uploaded> {
        self.entries.iter().map(|entry| Uploaded { path: entry.path.clone(), bytes: entry.size }).collect()
    }

    pub(crate) fn complete(self) -> Option<Taken> {
        Some(Taken { spool: Spool::new(self.entries, self.file?), digests: self.digests, _held: self.held })
    }

    fn count(&mut self, more: u64) -> Result<(), FileError> {
        let bytes = self.bytes.saturating_add(more);
        if bytes > self.most_bytes {
            return Err(FileError::NoSpace);
        }
        let needed = bytes.div_ceil(MIB) - self.bytes.div_ceil(MIB);
        if needed > 0 {
            let needed = u32::try_from(needed).unwrap_or(u32::MAX);
            let permit = Arc::clone(&self.budget).try_acquire_many_owned(needed);
            let permit = permit.map_err(|_| FileError::Busy { retry_after: crate::files::COME_AGAIN })?;
            match &mut self.held {
                Some(held) => held.merge(permit),
                None => self.held = Some(permit),
            }
        }
        self.bytes = bytes;
        Ok(())
    }
}

fn spooled(error: &std::io::Error) -> FileError {
    tracing::error!(%error, "a file of a request cannot be kept");
    FileError::Failed
}
