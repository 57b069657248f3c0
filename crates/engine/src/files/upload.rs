//! A file on its way into a sandbox.

use std::{collections::VecDeque, mem};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, pin_mut};
use model::access::Caller;
use protocol::files::{FILE_CHUNK_BYTES, FileOp};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use wire::{AuditType, SessionId, StoredFile};

use super::{Turn, check, desk::Pending, expect_done};
use crate::{Engine, FileError};

/// Pieces that are written while the next one comes in.
const AHEAD: usize = 2;

/// SHA-256.
pub type Digest = [u8; 32];

/// What is to be written.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Where.
    pub path: String,
    /// Permission bits, of 0o777.
    pub mode: u32,
    /// How large it will be, where that is known. Another size is refused.
    pub size: Option<u64>,
    /// What it must be. Something else is refused.
    pub digest: Option<Digest>,
}

impl Engine {
    /// Writes a file, in the place of one that is there. Until it is whole nothing of it is seen, and nothing is left of
    /// one that does not become whole, for whatever reason: dropped at any time, too.
    pub async fn write_file<E>(
        &self,
        caller: &Caller,
        id: SessionId,
        upload: Upload,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<StoredFile, FileError>
    where
        FileError: From<E>,
    {
        let Upload { path, mode, size, digest } = upload;
        check(&path)?;
        let reached = self.reach(caller, id).await?;
        if size.is_some_and(|size| size > reached.disk_bytes) {
            return Err(FileError::NoSpace);
        }
        let Turn { handle, _transfer } = reached.turn().await?;
        let desk = &reached.live.desk;
        let create = FileOp::Create { handle: handle.number, path: path.clone(), mode, size };
        expect_done(&desk.call(create).await?);

        let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
        let mut chunk = Vec::with_capacity(FILE_CHUNK_BYTES);
        let mut written: VecDeque<Pending> = VecDeque::with_capacity(AHEAD);
        pin_mut!(body);
        loop {
            let piece = body.next().await.transpose()?;
            let is_last = piece.is_none();
            let mut piece = piece.unwrap_or_default();
            bytes = bytes.saturating_add(piece.len() as u64);
            if bytes > size.unwrap_or(reached.disk_bytes) {
                return Err(if size.is_some() { FileError::OtherSize } else { FileError::NoSpace });
            }
            hash.update(&piece);
            while !piece.is_empty() || is_last && !chunk.is_empty() {
                let taken = piece.split_to(piece.len().min(FILE_CHUNK_BYTES - chunk.len()));
                chunk.extend_from_slice(&taken);
                if chunk.len() < FILE_CHUNK_BYTES && !is_last {
                    break;
                }
                if written.len() == AHEAD {
                    settle(written.pop_front()).await?;
                }
                let data = mem::replace(&mut chunk, Vec::with_capacity(FILE_CHUNK_BYTES));
                written.push_back(desk.begin(FileOp::Write { handle: handle.number, data }).await?);
            }
            if is_last {
                break;
            }
        }
        while !written.is_empty() {
            settle(written.pop_front()).await?;
        }
        if size.is_some_and(|size| size != bytes) {
            return Err(FileError::OtherSize);
        }
        let sha256: Digest = hash.finalize().into();
        if digest.is_some_and(|digest| digest != sha256) {
            return Err(FileError::OtherDigest { found: hex::encode(sha256) });
        }
        expect_done(&handle.commit().await?);
        let sha256 = hex::encode(sha256);
        let data = json!({ "path": path, "bytes": bytes, "sha256": sha256 });
        reached.record(AuditType::FileWritten, data).await;
        Ok(StoredFile { path, size: bytes, sha256 })
    }
}

async fn settle(pending: Option<Pending>) -> Result<(), FileError> {
    if let Some(pending) = pending {
        expect_done(&pending.done().await?);
    }
    Ok(())
}
