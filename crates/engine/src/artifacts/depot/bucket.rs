//! A bucket of an object store. A small object is sent at once, a larger one in parts, which are an object when all have
//! come.

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, WriteMultipart, path::Path};
use wire::SessionId;

/// Bytes of a part; object stores want five mebibytes at least, in all parts but the last.
const PART_BYTES: usize = 5 * 1024 * 1024;
/// Parts that are on their way at once.
const PARTS_AHEAD: usize = 2;

#[derive(Clone, Debug)]
pub(super) struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

/// An object that is being written.
#[derive(Debug)]
pub(crate) struct Keeping {
    store: Arc<dyn ObjectStore>,
    place: Path,
    buffer: Vec<u8>,
    /// Once it is more than one part.
    upload: Option<WriteMultipart>,
}

impl Bucket {
    pub(super) async fn open(store: Arc<dyn ObjectStore>, prefix: &str) -> io::Result<Self> {
        let prefix = Path::parse(prefix).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        // A key that does not fit or a bucket that is not there should be told now.
        let first = store.list(Some(&prefix)).next().await;
        first.transpose()?;
        Ok(Self { store, prefix })
    }

    pub(super) fn keep(&self, session: SessionId, number: u32) -> Keeping {
        Keeping {
            store: Arc::clone(&self.store),
            place: self.directory(session).join(number.to_string()),
            buffer: Vec::new(),
            upload: None,
        }
    }

    pub(super) async fn read(
        &self,
        session: SessionId,
        number: u32,
        range: Range<u64>,
    ) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>> {
        if range.is_empty() {
            return Ok(stream::empty().left_stream());
        }
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let object = self.store.get_opts(&self.directory(session).join(number.to_string()), options).await?;
        Ok(object.into_stream().map_err(io::Error::from).right_stream())
    }

    pub(super) async fn remove(&self, session: SessionId) -> io::Result<()> {
        let objects = self.store.list(Some(&self.directory(session))).map_ok(|object| object.location).boxed();
        let removed = self.store.delete_stream(objects);
        // One that somebody else has removed is as gone.
        let gone = |removed: &object_store::Result<Path>| !matches!(removed, Err(object_store::Error::NotFound { .. }));
        removed
            .filter(|removed| std::future::ready(gone(removed)))
            .try_for_each(|_| std::future::ready(Ok(())))
            .await?;
        Ok(())
    }

    pub(super) async fn sessions(&self, older_than: Duration) -> io::Result<Vec<SessionId>> {
        let mut objects = self.store.list(Some(&self.prefix));
        let mut begun: BTreeMap<SessionId, SystemTime> = BTreeMap::new();
        while let Some(object) = objects.try_next().await? {
            let mut below = object.location.prefix_match(&self.prefix).into_iter().flatten();
            let Some(id) = below.next().and_then(|name| name.as_ref().parse().ok()) else { continue };
            let modified = SystemTime::from(object.last_modified);
            begun.entry(id).and_modify(|begun| *begun = modified.min(*begun)).or_insert(modified);
        }
        let is_old = |begun: &SystemTime| begun.elapsed().is_ok_and(|age| age >= older_than);
        Ok(begun.into_iter().filter(|(_, begun)| is_old(begun)).map(|(id, _)| id).collect())
    }

    fn directory(&self, session: SessionId) -> Path {
        self.prefix.clone().join(session.to_string())
    }
}

impl Keeping {
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.upload.is_none() && self.buffer.len() + bytes.len() > PART_BYTES {
            let upload = self.store.put_multipart(&self.place).await?;
            self.upload = Some(WriteMultipart::new_with_chunk_size(upload, PART_BYTES));
        }
        match &mut self.upload {
            None => self.buffer.extend_from_slice(bytes),
            Some(upload) => {
                let held = std::mem::take(&mut self.buffer);
                upload.write(&held);
                upload.wait_for_capacity(PARTS_AHEAD).await?;
                upload.write(bytes);
            }
        }
        Ok(())
    }

    pub(super) async fn done(mut self) -> io::Result<()> {
        match self.upload.take() {
            Some(upload) => drop(upload.finish().await?),
            None => drop(self.store.put(&self.place, std::mem::take(&mut self.buffer).into()).await?),
        }
        Ok(())
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        // Parts that nobody puts together cost money.
        if let (Some(upload), Ok(runtime)) = (self.upload.take(), tokio::runtime::Handle::try_current()) {
            let place = self.place.clone();
            runtime.spawn(async move {
                if let Err(error) = upload.abort().await {
                    tracing::warn!(object = %place, %error, "parts of an object stay");
                }
            });
        }
    }
}
