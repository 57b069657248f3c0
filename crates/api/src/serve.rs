//! The HTTP server: accepting, bounding, and stopping.
//!
//! Everything that a client can do before a handler knows it is bounded here: how many connections there are, how long
//! and how large a request's head may be, how long nothing may happen, how long an answer may go unread.

mod activity;
mod connection;
mod socket;

use std::{io, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::{serve::connection::Connection, settings::Settings};

/// The smallest buffer that the HTTP/1 parser works with.
const MIN_BUFFER: usize = 8192;
/// HTTP/1 reads a body through the same buffer as the head: small ones would cut it into many pieces.
const BUFFER: usize = 64 * 1024;
/// Requests under way at once on one HTTP/2 connection.
const STREAMS: u32 = 100;
/// How often a silent HTTP/2 peer is asked whether it lives, and how long it may take to say so.
const PING: Duration = Duration::from_secs(20);
/// Rest after a failed accept: without descriptors the next one fails at once too.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// In every request that came through [`serve`]: cancelled when the server stops. Streams end then, long polls answer.
#[derive(Clone, Debug)]
pub(crate) struct Closing(CancellationToken);

impl Closing {
    /// The request's token; one that is never cancelled when it came another way.
    pub(crate) fn of(extension: Option<Extension<Self>>) -> CancellationToken {
        extension.map_or_else(CancellationToken::new, |Extension(Self(token))| token)
    }
}

/// In every request that came through [`serve`], for a connection that becomes something else than HTTP: as long as this is
/// held it counts as one, and the server's end waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Carried {
    /// Cancelled when nothing may go on.
    pub(crate) cut: CancellationToken,
    _place: Arc<Place>,
}

/// A connection's place among all.
struct Place {
    _slot: OwnedSemaphorePermit,
    _tracked: TaskTrackerToken,
    open: metrics::Gauge,
}

impl Place {
    fn new(slot: OwnedSemaphorePermit, connections: &TaskTracker) -> Arc<Self> {
        let open = metrics::gauge!("http_connections");
        open.increment(1.0);
        Arc::new(Self { _slot: slot, _tracked: connections.token(), open })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.decrement(1.0);
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

/// Serves `app` until `shutdown` is cancelled and what was under way has ended, or has been cut off at the deadline.
pub async fn serve(listener: TcpListener, app: Router, settings: Settings, shutdown: CancellationToken) {
    let settings = Arc::new(settings);
    let http = http(&settings);
    let slots = Arc::new(Semaphore::new(settings.max_connections.min(Semaphore::MAX_PERMITS)));
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    while let Some((stream, slot)) = next(&listener, &slots, &shutdown).await {
        let connection = Connection {
            http: http.clone(),
            app: app.clone(),
            settings: Arc::clone(&settings),
            closing: shutdown.clone(),
            carried: Carried { cut: cut.clone(), _place: Place::new(slot, &connections) },
        };
        tokio::spawn(connection.run(stream));
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(settings.drain_timeout, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests did not end in time and are cut off");
        cut.cancel();
        connections.wait().await;
    }
}

/// The next connection and its slot; none once the server stops.
async fn next(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let accept = async {
        // The slot first: what cannot be served is not accepted, and waits in the kernel's bounded queue.
        let slot = Arc::clone(slots).acquire_owned().await.expect("the semaphore is never closed");
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return (stream, slot),
                Err(error) => rest(&error).await,
            }
        }
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        accepted = accept => Some(accepted),
    }
}

async fn rest(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        return;
    }
    tracing::warn!(error = error as &dyn std::error::Error, "a connection could not be accepted");
    tokio::time::sleep(ACCEPT_REST).await;
}

fn http(settings: &Settings) -> auto::Builder<TokioExecutor> {
    let head = settings.max_header_bytes;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_headers(settings.max_headers)
        .max_buf_size(BUFFER.max(head).max(MIN_BUFFER));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}
