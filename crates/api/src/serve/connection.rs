//! One connection: a task that drives it, and ends it when it is of no use, when the server stops, or at the deadline.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{net::TcpStream, time::Instant};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::{
    Carried, Closing,
    activity::{Activity, Use},
    socket::Socket,
};
use crate::settings::Settings;

/// How long a connection that was told to end may take for it when nothing is under way.
const GRACE: Duration = Duration::from_secs(5);

pub(super) struct Connection {
    pub(super) http: auto::Builder<TokioExecutor>,
    pub(super) app: Router,
    pub(super) settings: Arc<Settings>,
    /// The server stops: no new requests, and what is under way may end.
    pub(super) closing: CancellationToken,
    /// Its place, and when nothing may go on.
    pub(super) carried: Carried,
}

impl Connection {
    pub(super) async fn run(self, stream: TcpStream) {
        let Self { http, app, settings, closing, carried } = self;
        // Answers are small: without this, the second one on a connection may wait for the client's delayed ack.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let activity = Activity::new();
        let counted = Arc::clone(&activity);
        let told = Closing(closing.clone());
        let cut = carried.cut.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let asked = counted.ask(request.version());
            request.extensions_mut().insert(told.clone());
            request.extensions_mut().insert(carried.clone());
            let answer = app.clone().call(request);
            async move {
                let answer = answer.await.unwrap_or_else(|never: Infallible| match never {});
                Ok::<_, Infallible>(answer.map(|body| asked.answer(body)))
            }
        });
        let io = TokioIo::new(Socket::new(stream, settings.stall_timeout));
        let mut connection = pin!(http.serve_connection_with_upgrades(io, service));
        let mut check_at = Instant::now() + settings.header_timeout;
        let mut ending = false;
        loop {
            tokio::select! {
                // Ends of connections are the clients' affair; there is nobody to tell.
                _ = connection.as_mut() => break,
                () = cut.cancelled() => break,
                () = closing.cancelled(), if !ending => {
                    connection.as_mut().graceful_shutdown();
                    ending = true;
                    check_at = Instant::now() + GRACE;
                }
                () = tokio::time::sleep_until(check_at) => {
                    let now = Instant::now();
                    match useless_at(activity.now(), &settings, ending) {
                        None => check_at = now + if ending { GRACE } else { settings.idle_timeout },
                        Some(at) if at > now => check_at = if ending { at.min(now + GRACE) } else { at },
                        Some(_) if ending => break,
                        Some(_) => {
                            connection.as_mut().graceful_shutdown();
                            ending = true;
                            check_at = now + GRACE;
                        }
                    }
                }
            }
        }
    }
}

/// When the connection will have been of no use for too long; none if it is in use now.
fn useless_at(now: Use, settings: &Settings, ending: bool) -> Option<Instant> {
    match now {
        Use::Busy => None,
        // A stream whose reader takes everything goes on at every heartbeat.
        Use::Unread { since } => Some(since + settings.stall_timeout + settings.heartbeat),
        Use::Idle { since } | Use::New { since } if ending => Some(since),
        Use::Idle { since } => Some(since + settings.idle_timeout),
        // One that has not brought any request yet has less time.
        Use::New { since } => Some(since + settings.header_timeout),
    }
}
