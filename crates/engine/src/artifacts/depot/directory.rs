//! A directory of this host. A file is written under a name that nobody reads, and renamed when it is whole.

use std::{
    io::{self, SeekFrom},
    ops::Range,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::{Stream, stream};
use tokio::{
    fs::{self, File},
    io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _},
};
use wire::SessionId;

/// Bytes that are read at once.
const READ_BYTES: u64 = 256 * 1024;

#[derive(Clone, Debug)]
pub(super) struct Directory {
    root: PathBuf,
}

/// A file that is being written. Removed when it is dropped before it was kept.
#[derive(Debug)]
pub(crate) struct Keeping {
    file: File,
    beside: PathBuf,
    place: PathBuf,
    kept: bool,
}

impl Directory {
    pub(super) fn open(root: PathBuf) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&root)?;
        Ok(Self { root })
    }

    pub(super) async fn keep(&self, session: SessionId, number: u32) -> io::Result<Keeping> {
        let directory = self.directory(session);
        fs::create_dir_all(&directory).await?;
        let place = directory.join(number.to_string());
        let beside = directory.join(format!("{number}.part"));
        let file = File::options().write(true).create_new(true).mode(0o600).open(&beside).await?;
        Ok(Keeping { file, beside, place, kept: false })
    }

    pub(super) async fn read(
        &self,
        session: SessionId,
        number: u32,
        range: Range<u64>,
    ) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>> {
        let mut file = File::open(self.directory(session).join(number.to_string())).await?;
        if range.start > 0 {
            file.seek(SeekFrom::Start(range.start)).await?;
        }
        let left = range.end.saturating_sub(range.start);
        Ok(stream::try_unfold((file, left), |(mut file, left)| async move {
            if left == 0 {
                return Ok(None);
            }
            let most = usize::try_from(left.min(READ_BYTES)).unwrap_or(usize::MAX);
            let mut piece = vec![0; most];
            let read = file.read(&mut piece).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            piece.truncate(read);
            Ok(Some((piece.into(), (file, left - read as u64))))
        }))
    }

    pub(super) async fn remove(&self, session: SessionId) -> io::Result<()> {
        gone(fs::remove_dir_all(self.directory(session)).await)
    }

    pub(super) async fn sessions(&self, older_than: Duration) -> io::Result<Vec<SessionId>> {
        let mut found = Vec::new();
        let mut entries = fs::read_dir(&self.root).await?;
        while let Some(entry) = entries.next_entry().await? {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let age = entry.metadata().await?.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            if age.is_some_and(|age| age >= older_than) {
                found.push(id);
            }
        }
        Ok(found)
    }

    fn directory(&self, session: SessionId) -> PathBuf {
        self.root.join(session.to_string())
    }
}

impl Keeping {
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).await
    }

    pub(super) async fn done(mut self) -> io::Result<()> {
        self.file.flush().await?;
        fs::rename(&self.beside, &self.place).await?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        if !self.kept {
            // What stays is swept with its session.
            let _ = std::fs::remove_file(&self.beside);
        }
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
