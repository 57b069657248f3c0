//! The files that come out of a clone's sandbox: hostile bytes, read record by record into a file without a name.
//!
//! `clone.py` describes the records. What an honest one would not send is refused, and nothing is kept in memory but
//! names: the content goes to the spool, and from there into the workload's sandbox.

use std::io;

use model::session::is_git_directory;
use protocol::path;
use tokio::{fs::File, io::AsyncWriteExt as _};

use crate::spool::{Entry, Kind, Spool, refuse_overlaps};

/// Files of one tree. Each costs a round through the sandbox's file system.
pub(in crate::driver) const MAX_FILES: usize = 50_000;
/// Bytes of all their names: what one clone may cost this process in memory.
const MAX_NAME_BYTES: usize = 8 * 1024 * 1024;
/// Kind, length of the path, length of the content.
const HEADER: usize = 1 + 4 + 8;

/// Why the bytes are no tree.
#[derive(Debug, thiserror::Error)]
pub(in crate::driver) enum TreeError {
    #[error("a name {0}")]
    Name(#[from] path::PathError),
    #[error("a name is not UTF-8")]
    NotText,
    #[error("a name leads into .git")]
    Git,
    #[error("a name is there twice, or as a file and as a directory")]
    Twice,
    #[error("a link leads out")]
    LinkOut,
    #[error("an unknown kind of record")]
    Kind,
    #[error("it is cut short, or goes on behind its end")]
    Length,
    #[error("it has more than {MAX_FILES} files, or names that are too long together")]
    TooMany,
    #[error("it has more than {0} bytes")]
    TooLarge(u64),
    #[error("the spool of the clone")]
    Spool(#[from] io::Error),
}

/// A tree that is coming in.
#[derive(Debug)]
pub(in crate::driver) struct Reader {
    spool: File,
    most_bytes: u64,
    bytes: u64,
    name_bytes: usize,
    entries: Vec<Entry>,
    /// The beginning of a record whose header and path are not whole.
    head: Vec<u8>,
    /// Of the last entry's content.
    missing: u64,
    /// The target of a link, to look at.
    target: Vec<u8>,
    ended: bool,
}

impl Reader {
    /// For a tree whose contents may have so many bytes together.
    pub(in crate::driver) async fn new(most_bytes: u64) -> io::Result<Self> {
        Ok(Self {
            spool: Spool::file().await?,
            most_bytes,
            bytes: 0,
            name_bytes: 0,
            entries: Vec::new(),
            head: Vec::new(),
            missing: 0,
            target: Vec::new(),
            ended: false,
        })
    }

    /// Takes bytes as they come.
    pub(in crate::driver) async fn push(&mut self, mut bytes: &[u8]) -> Result<(), TreeError> {
        while !bytes.is_empty() {
            if self.ended {
                return Err(TreeError::Length);
            }
            if self.missing > 0 {
                let now = usize::try_from(self.missing).unwrap_or(usize::MAX).min(bytes.len());
                let (content, rest) = bytes.split_at(now);
                self.content(content).await?;
                bytes = rest;
                continue;
            }
            let wanted = self.wanted()? - self.head.len();
            let (part, rest) = bytes.split_at(wanted.min(bytes.len()));
            self.head.extend_from_slice(part);
            bytes = rest;
            if self.head.len() == self.wanted()? {
                self.begin()?;
            }
        }
        Ok(())
    }

    /// The whole tree, once everything has come.
    pub(in crate::driver) async fn finish(mut self) -> Result<Spool, TreeError> {
        if !self.ended {
            return Err(TreeError::Length);
        }
        self.spool.flush().await?;
        refuse_overlaps(self.entries.iter().map(|entry| entry.path.as_str())).map_err(|_| TreeError::Twice)?;
        Ok(Spool::new(self.entries, self.spool))
    }

    /// Bytes of the header, and of the path once its length is known.
    fn wanted(&self) -> Result<usize, TreeError> {
        let Some((header, _)) = self.head.split_first_chunk::<HEADER>() else { return Ok(HEADER) };
        let [_, a, b, c, d, ..] = *header;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > path::MAX_PATH_BYTES { Err(path::PathError::TooLong.into()) } else { Ok(HEADER + length) }
    }

    fn begin(&mut self) -> Result<(), TreeError> {
        let head = std::mem::take(&mut self.head);
        let (header, name) = head.split_first_chunk::<HEADER>().expect("it is whole");
        let [kind, _, _, _, _, size @ ..] = *header;
        let size = u64::from_be_bytes(size);
        let kind = match kind {
            b'f' => Kind::File,
            b'x' => Kind::Executable,
            b'l' => Kind::Link,
            b'e' if name.is_empty() && size == self.entries.len() as u64 => {
                self.ended = true;
                return Ok(());
            }
            b'e' => return Err(TreeError::Length),
            _ => return Err(TreeError::Kind),
        };
        let path = std::str::from_utf8(name).map_err(|_| TreeError::NotText)?;
        path::check(path)?;
        if path.split('/').any(is_git_directory) {
            return Err(TreeError::Git);
        }
        self.name_bytes += path.len();
        if self.entries.len() >= MAX_FILES || self.name_bytes > MAX_NAME_BYTES {
            return Err(TreeError::TooMany);
        }
        if kind == Kind::Link && (size == 0 || size > path::MAX_PATH_BYTES as u64) {
            return Err(TreeError::LinkOut);
        }
        let offset = self.bytes;
        self.bytes = offset.saturating_add(size);
        if self.bytes > self.most_bytes {
            return Err(TreeError::TooLarge(self.most_bytes));
        }
        self.entries.push(Entry { path: path.to_owned(), kind, size, offset });
        self.missing = size;
        self.target.clear();
        Ok(())
    }

    async fn content(&mut self, content: &[u8]) -> Result<(), TreeError> {
        self.spool.write_all(content).await?;
        self.missing -= content.len() as u64;
        let entry = self.entries.last().expect("its content is missing");
        if entry.kind == Kind::Link {
            self.target.extend_from_slice(content);
            let target = std::str::from_utf8(&self.target).unwrap_or_default();
            if self.missing == 0 && !path::link_stays_inside(&entry.path, target) {
                return Err(TreeError::LinkOut);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
