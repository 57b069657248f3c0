//! Files on their way into a sandbox, on this host's disk: in one file without a name, which is gone with the process.

use std::{
    collections::HashSet,
    io::{self, SeekFrom},
};

use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _},
};

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Executable,
    Link,
}

/// A file, and where in the spool its content is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    pub(crate) offset: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Spool {
    entries: Vec<Entry>,
    file: File,
}

impl Spool {
    pub(crate) fn new(entries: Vec<Entry>, file: File) -> Self {
        Self { entries, file }
    }

    /// The file for one.
    pub(crate) async fn file() -> io::Result<File> {
        let file = tokio::task::spawn_blocking(tempfile::tempfile).await.map_err(io::Error::other)??;
        Ok(File::from_std(file))
    }

    /// Its files, in the order in which they came.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Bytes of all contents.
    pub(crate) fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.size).sum()
    }

    /// Reads a part of an entry's content: as much as there is from `at`, at most `most`.
    pub(crate) async fn read(&mut self, entry: &Entry, at: u64, most: usize) -> io::Result<Vec<u8>> {
        let length = usize::try_from(entry.size - at).unwrap_or(usize::MAX).min(most);
        let mut part = vec![0; length];
        self.file.seek(SeekFrom::Start(entry.offset + at)).await?;
        self.file.read_exact(&mut part).await?;
        Ok(part)
    }
}

/// Something is there twice, or as a file and as a directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Overlap(pub(crate) String);

/// Whether all of these can be files of one directory.
pub(crate) fn refuse_overlaps<'a>(paths: impl Iterator<Item = &'a str> + Clone) -> Result<(), Overlap> {
    let mut files = HashSet::new();
    for path in paths.clone() {
        if !files.insert(path) {
            return Err(Overlap(path.to_owned()));
        }
    }
    let above = |path: &'a str| path.match_indices('/').map(move |(at, _)| &path[..at]);
    match paths.flat_map(above).find(|above| files.contains(above)) {
        Some(above) => Err(Overlap(above.to_owned())),
        None => Ok(()),
    }
}
