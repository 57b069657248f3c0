//! Whether a connection is of use: requests under way, and when the last one ended.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

/// Shared by a connection's task and the answers that it is sending.
#[derive(Debug)]
pub(super) struct Activity {
    start: Instant,
    under_way: AtomicUsize,
    /// Milliseconds after `start` at which the last request began or ended; none yet when 0.
    last_ms: AtomicU64,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), under_way: AtomicUsize::new(0), last_ms: AtomicU64::new(0) })
    }

    /// Notes that a request began. It ends when the guard is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        self.touch();
        UnderWay(Arc::clone(self))
    }

    /// When the connection will have been of no use for too long; none if it is in use now. A connection that has not
    /// brought any request yet has less time.
    pub(super) fn useless_at(&self, first: Duration, idle: Duration) -> Option<Instant> {
        if self.under_way.load(Ordering::Relaxed) > 0 {
            return None;
        }
        match self.last_ms.load(Ordering::Relaxed) {
            0 => Some(self.start + first),
            ms => Some(self.start + Duration::from_millis(ms) + idle),
        }
    }

    fn touch(&self) {
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(ms.max(1), Ordering::Relaxed);
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.touch();
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body, which keeps its request under way until it was sent or given up.
#[derive(Debug)]
pub(super) struct Tracked {
    body: Body,
    _under_way: UnderWay,
}

impl Tracked {
    pub(super) fn new(body: Body, under_way: UnderWay) -> Self {
        Self { body, _under_way: under_way }
    }
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
