//! A file on its way out of a sandbox.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{Stream, stream};
use model::access::Caller;
use protocol::{
    DISK_TOLERANCE_BYTES,
    files::{FILE_CHUNK_BYTES, FileDone, FileOp},
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use wire::{AuditType, SessionId};

use super::{Reached, Turn, check, desk::Pending};
use crate::{Engine, FileError, files::Digest};

/// Pieces that are read while the one before is sent.
const AHEAD: usize = 2;

/// A file that was opened. It is read as far as its reader takes it.
pub struct Download {
    /// Its size when it was opened.
    pub size: u64,
    first: Option<Bytes>,
    source: Source,
}

/// What a piece comes from.
struct Source {
    reached: Reached,
    turn: Turn,
    path: String,
}

/// What was read of a file so far. Recorded when it is dropped, however far the reader came.
struct Reading {
    source: Source,
    /// What is still to be asked for.
    wanted: Range<u64>,
    asked: VecDeque<(u32, Pending)>,
    first: Option<Bytes>,
    hash: Sha256,
    offset: u64,
    bytes: u64,
    whole: u64,
}

impl Engine {
    /// Opens a file.
    pub async fn read_file(&self, caller: &Caller, id: SessionId, path: &str) -> Result<Download, FileError> {
        check(path)?;
        let reached = self.reach(caller, id).await?;
        let turn = reached.turn().await?;
        let open = FileOp::Open { handle: turn.handle.number, path: path.to_owned() };
        let FileDone::Opened(facts) = reached.live.desk.call(open).await? else { return Err(FileError::Failed) };
        if facts.size > reached.disk_bytes.saturating_add(DISK_TOLERANCE_BYTES) {
            // Mostly holes: more than there can be on its disk.
            return Err(FileError::TooLarge { size: facts.size });
        }
        let source = Source { reached, turn, path: path.to_owned() };
        Ok(Download { size: facts.size, first: None, source })
    }
}

impl Download {
    /// The digest of the whole file, if that is one piece. The piece is kept, and is what will be sent.
    pub async fn digest(&mut self) -> Result<Option<Digest>, FileError> {
        if self.size > FILE_CHUNK_BYTES as u64 {
            return Ok(None);
        }
        let bytes = u32::try_from(self.size).unwrap_or(u32::MAX);
        let data = self.source.ask(0, bytes).await?.done().await?;
        let FileDone::Read(data) = data else { return Err(FileError::Failed) };
        if data.len() as u64 != self.size {
            return Err(FileError::Interfered);
        }
        let digest = Sha256::digest(&data).into();
        self.first = Some(data.into());
        Ok(Some(digest))
    }

    /// These bytes of it, which begin and end within its size. A file that has become shorter ends them with an error.
    pub fn bytes(self, range: Range<u64>) -> impl Stream<Item = Result<Bytes, FileError>> + Send + use<> {
        let start = usize::try_from(range.start).unwrap_or(usize::MAX);
        let end = usize::try_from(range.end).unwrap_or(usize::MAX);
        let first = self.first.filter(|first| end <= first.len() && start < end).map(|first| first.slice(start..end));
        let wanted = if first.is_some() { range.end..range.end } else { range.clone() };
        let reading = Reading {
            source: self.source,
            wanted,
            asked: VecDeque::with_capacity(AHEAD),
            first,
            hash: Sha256::new(),
            offset: range.start,
            bytes: 0,
            whole: self.size,
        };
        stream::try_unfold(reading, |mut reading| async move {
            let piece = reading.next().await?;
            Ok(piece.map(|piece| (piece, reading)))
        })
    }
}

impl Source {
    async fn ask(&self, offset: u64, bytes: u32) -> Result<Pending, FileError> {
        let read = FileOp::Read { handle: self.turn.handle.number, offset, bytes };
        Ok(self.reached.live.desk.begin(read).await?)
    }
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, FileError> {
        let piece = if let Some(first) = self.first.take() {
            first
        } else {
            while self.asked.len() < AHEAD && !self.wanted.is_empty() {
                let bytes = (self.wanted.end - self.wanted.start).min(FILE_CHUNK_BYTES as u64);
                let asked = u32::try_from(bytes).unwrap_or(u32::MAX);
                let pending = self.source.ask(self.wanted.start, asked).await?;
                self.wanted.start += bytes;
                self.asked.push_back((asked, pending));
            }
            let Some((asked, pending)) = self.asked.pop_front() else { return Ok(None) };
            let FileDone::Read(data) = pending.done().await? else { return Err(FileError::Failed) };
            if data.len() != asked as usize {
                return Err(FileError::Interfered);
            }
            data.into()
        };
        self.hash.update(&piece);
        self.bytes += piece.len() as u64;
        Ok(Some(piece))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let sha256 = hex::encode(std::mem::take(&mut self.hash).finalize());
        let mut data = json!({ "path": self.source.path, "bytes": self.bytes, "sha256": sha256 });
        if self.bytes != self.whole {
            // A part, asked for or not: the digest is that of the part.
            data["offset"] = self.offset.into();
            data["size"] = self.whole.into();
        }
        let reached = self.source.reached.clone();
        if tokio::runtime::Handle::try_current().is_ok() {
            let inner = Arc::clone(&reached.inner);
            inner.drivers.spawn(async move { reached.record(AuditType::FileRead, data).await });
        }
    }
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download").field("size", &self.size).finish_non_exhaustive()
    }
}
