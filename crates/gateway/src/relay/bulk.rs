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

/// Pipes of a session.
const MAX_PIPES: usize = 8;
/// Room in a pipe. A user's pipes may have 64 MiB together before the kernel makes further ones small.
const PIPE_BYTES: usize = 512 * 1024;

/// How many pipes a session has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pipes(Arc<AtomicUsize>);

/// A pipe, and its place among the session's.
pub(super) struct Bulk {
    from: OwnedFd,
    to: OwnedFd,
    pipes: Pipes,
}

impl Bulk {
    /// A pipe, if there may be one more.
    pub(super) fn take(pipes: &Pipes) -> Option<Self> {
        let place =
            pipes.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| (used < MAX_PIPES).then_some(used + 1));
        place.ok()?;
        let made = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .and_then(|(from, to)| fcntl_setpipe_size(&to, PIPE_BYTES).map(|_| (from, to)));
        if let Ok((from, to)) = made {
            return Some(Self { from, to, pipes: pipes.clone() });
        }
        pipes.0.fetch_sub(1, Ordering::Relaxed);
        None
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

impl Drop for Bulk {
    fn drop(&mut self) {
        self.pipes.0.fetch_sub(1, Ordering::Relaxed);
    }
}
