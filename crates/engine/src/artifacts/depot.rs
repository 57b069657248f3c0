//! Where the content of artifacts is: in a directory, or in a bucket of an object store. Each session has a directory, or
//! a prefix, and each artifact a file, or an object, in it.
//!
//! Names are numbers of ours, never a path that came out of a sandbox. Nothing is read that is not whole.

mod bucket;
mod directory;

use std::{io, ops::Range, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use object_store::ObjectStore;
use wire::SessionId;

use self::{bucket::Bucket, directory::Directory};

/// See the module.
#[derive(Clone, Debug)]
pub struct Depot(Place);

#[derive(Clone, Debug)]
enum Place {
    Directory(Directory),
    Bucket(Bucket),
}

/// A file that is being written. Nothing is left of one that is dropped before it was kept.
#[derive(Debug)]
pub(crate) enum Keeping {
    File(directory::Keeping),
    Object(bucket::Keeping),
}

impl Depot {
    /// In this directory, which is made if it is not there, for this process's user alone.
    pub fn open(root: PathBuf) -> io::Result<Self> {
        Directory::open(root).map(Place::Directory).map(Self)
    }

    /// In this object store, below a prefix. Looks whether it can be reached.
    pub async fn bucket(store: Arc<dyn ObjectStore>, prefix: &str) -> io::Result<Self> {
        Bucket::open(store, prefix).await.map(Place::Bucket).map(Self)
    }

    /// Begins a file.
    pub(crate) async fn keep(&self, session: SessionId, number: u32) -> io::Result<Keeping> {
        match &self.0 {
            Place::Directory(directory) => directory.keep(session, number).await.map(Keeping::File),
            Place::Bucket(bucket) => Ok(Keeping::Object(bucket.keep(session, number))),
        }
    }

    /// Bytes of a file.
    pub(crate) async fn read(
        &self,
        session: SessionId,
        number: u32,
        range: Range<u64>,
    ) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
        Ok(match &self.0 {
            Place::Directory(directory) => directory.read(session, number, range).await?.boxed(),
            Place::Bucket(bucket) => bucket.read(session, number, range).await?.boxed(),
        })
    }

    /// Removes a session's files.
    pub(crate) async fn remove(&self, session: SessionId) -> io::Result<()> {
        match &self.0 {
            Place::Directory(directory) => directory.remove(session).await,
            Place::Bucket(bucket) => bucket.remove(session).await,
        }
    }

    /// Sessions that have files which were begun longer ago than this.
    pub(crate) async fn sessions(&self, older_than: Duration) -> io::Result<Vec<SessionId>> {
        match &self.0 {
            Place::Directory(directory) => directory.sessions(older_than).await,
            Place::Bucket(bucket) => bucket.sessions(older_than).await,
        }
    }
}

impl Keeping {
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write(bytes).await,
            Self::Object(object) => object.write(bytes).await,
        }
    }

    /// It is whole.
    pub(crate) async fn done(self) -> io::Result<()> {
        match self {
            Self::File(file) => file.done().await,
            Self::Object(object) => object.done().await,
        }
    }
}

#[cfg(test)]
mod tests;
