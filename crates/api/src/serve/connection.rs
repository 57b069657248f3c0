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
    Closing,
    activity::{Activity, Tracked},
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
    /// The deadline has passed.
    pub(super) cut: CancellationToken,
}

impl Connection {
    pub(super) async fn run(self, stream: TcpStream) {
        let Self { http, app, settings, closing, cut } = self;
        // Answers are small: without this, the second one on a connection may wait for the client's delayed ack.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let gauge = metrics::gauge!("http_connections");
        gauge.increment(1.0);
        let activity = Activity::new();
        let counted = Arc::clone(&activity);
        let told = Closing(closing.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            let under_way = counted.enter();
            request.extensions_mut().insert(told.clone());
            let answer = app.clone().call(request);
            async move {
                let answer = answer.await.unwrap_or_else(|never: Infallible| match never {});
                Ok::<_, Infallible>(answer.map(|body| Tracked::new(body, under_way)))
            }
        });
        let io = TokioIo::new(Socket::new(stream, settings.stall_timeout));
        let mut connection = pin!(http.serve_connection(io, service));
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
                    match activity.useless_at(settings.header_timeout, settings.idle_timeout) {
                        None => check_at = now + if ending { GRACE } else { settings.idle_timeout },
                        Some(_) if ending => break,
                        Some(at) if at > now => check_at = at,
                        Some(_) => {
                            connection.as_mut().graceful_shutdown();
                            ending = true;
                            check_at = now + GRACE;
                        }
                    }
                }
            }
        }
        gauge.decrement(1.0);
    }
}
