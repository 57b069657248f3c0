//! Bulk: bytes that go from socket to socket through a pipe, and are never copied into this process.
//!
//! A pipe costs two descriptors, and memory that the kernel counts for all processes of a user together. So there are
//! few of them in a session, and a direction that gets none is copied.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Connections of a session that have room for bulk: a pipe, or a wide socket.
const MAX_BULK: usize = 8;
/// What a direction has moved when it is taken for bulk.
pub(crate) const BULK_BYTES: u64 = 1024 * 1024;
/// Room in a pipe. A user's pipes may have 64 MiB together before the kernel makes further ones small.
const PIPE_BYTES: usize = 512 * 1024;

/// How many of them a session has.
#[derive(Clone, Debug, Default)]
pub(crate) struct BulkPlaces(Arc<AtomicUsize>);

/// One of them.
#[derive(Debug)]
pub(crate) struct BulkPlace(BulkPlaces);

impl BulkPlaces {
    /// One more, if there may be.
    pub(crate) fn take(&self) -> Option<BulkPlace> {
        let more = |used| (used < MAX_BULK).then_some(used + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok().then(|| BulkPlace(self.clone()))
    }
}

impl Drop for BulkPlace {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A pipe.
pub(super) struct Bulk {
    from: OwnedFd,
    to: OwnedFd,
    _place: BulkPlace,
}

impl Bulk {
    /// A pipe, if there may be one more.
    pub(super) fn take(places: &BulkPlaces) -> Option<Self> {
        let place = places.take()?;
        let (from, to) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        fcntl_setpipe_size(&to, PIPE_BYTES).ok()?;
        Some(Self { from, to, _place: place })
    }

    /// From a socket into the pipe, which is empty.
    pub(super) fn fill(&self, from: impl AsFd) -> io::Result<usize> {
        Ok(splice(from, None, &self.to, None, PIPE_BYTES, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
    }

    /// From the pipe, which has this much, into a socket. Unlike other writes this raises SIGPIPE when the other side has
    /// gone, which Rust programs ignore.
    pub(super) fn empty(&self, to: impl AsFd, length: usize) -> io::Result<usize> {
        Ok(splice(&self.from, None, to, None, length, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_few_places_and_each_comes_back() {
        let places = BulkPlaces::default();
        let taken: Vec<_> = std::iter::from_fn(|| places.take()).collect();
        assert_eq!(taken.len(), MAX_BULK);
        assert!(Bulk::take(&places).is_none());
        drop(taken);
        let bulk = Bulk::take(&places).unwrap();
        let more: Vec<_> = std::iter::from_fn(|| places.take()).collect();
        assert_eq!(more.len(), MAX_BULK - 1);
        drop((bulk, more));
        assert!(places.take().is_some());
    }
}
