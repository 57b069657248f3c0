//! Whether a connection is of use: requests under way, answers that go on, and when that was last so.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::{
    Version,
    body::{Frame, SizeHint},
};
use tokio::time::Instant;

/// Shared by a connection's task and the requests that it carries.
#[derive(Debug)]
pub(super) struct Activity {
    start: Instant,
    /// Requests whose answer has not begun. The gate bounds how long that takes.
    asked: AtomicUsize,
    /// Answers that are being sent.
    answering: AtomicUsize,
    /// Whether the peer decides how much of an answer it takes: then nothing need be pending on the socket when it takes
    /// none.
    is_http2: AtomicBool,
    /// Milliseconds after `start` at which a request began or ended, or an answer went on; none yet when 0.
    last_ms: AtomicU64,
}

/// What a connection is of use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Requests are under way, and something else sees to it that they end.
    Busy,
    /// Answers are being sent that nobody makes the peer take.
    Unread {
        /// When the last piece was taken.
        since: Instant,
    },
    /// Nothing is under way since then.
    Idle {
        /// When the last request ended.
        since: Instant,
    },
    /// There was no request yet.
    New {
        /// When the connection was made.
        since: Instant,
    },
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        let zero = AtomicUsize::default;
        let (start, is_http2, last_ms) = (Instant::now(), AtomicBool::new(false), AtomicU64::new(0));
        Arc::new(Self { start, asked: zero(), answering: zero(), is_http2, last_ms })
    }

    /// Notes that a request began. It ends when the guard is dropped.
    pub(super) fn ask(self: &Arc<Self>, version: Version) -> Asked {
        self.is_http2.fetch_or(version == Version::HTTP_2, Ordering::Relaxed);
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.touch();
        Asked(Arc::clone(self))
    }

    pub(super) fn now(&self) -> Use {
        let last_ms = self.last_ms.load(Ordering::Relaxed);
        let since = self.start + Duration::from_millis(last_ms);
        let answering = self.answering.load(Ordering::Relaxed) > 0;
        if answering && self.asked.load(Ordering::Relaxed) == 0 && self.is_http2.load(Ordering::Relaxed) {
            Use::Unread { since }
        } else if answering || self.asked.load(Ordering::Relaxed) > 0 {
            Use::Busy
        } else if last_ms > 0 {
            Use::Idle { since }
        } else {
            Use::New { since: self.start }
        }
    }

    fn touch(&self) {
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(ms.max(1), Ordering::Relaxed);
    }
}

/// A request whose answer has not begun.
#[derive(Debug)]
pub(super) struct Asked(Arc<Activity>);

impl Asked {
    /// The answer begins with this body.
    pub(super) fn answer(self, body: Body) -> Tracked {
        self.0.answering.fetch_add(1, Ordering::Relaxed);
        Tracked { body, activity: Arc::clone(&self.0) }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.touch();
        self.0.asked.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body, which keeps its request under way until it was sent or given up, and notes when pieces are taken.
#[derive(Debug)]
pub(super) struct Tracked {
    body: Body,
    activity: Arc<Activity>,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.activity.touch();
        self.activity.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // HTTP/2 asks for a piece only when its reader has room for one.
        self.activity.touch();
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
