//! A service on this host, for the demo's programs to reach: it wants a token, which no program is given.

use std::{
    io,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::AbortHandle};

/// See the module. Ends when it is dropped.
pub(super) struct Upstream {
    pub(super) port: u16,
    pub(super) token: String,
    granted: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    /// Starts it, with a token that nobody else has.
    pub(super) async fn start(token: String) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let granted = Arc::<AtomicU64>::default();
        let expected = format!("Bearer {token}");
        let counted = Arc::clone(&granted);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (expected, granted) = (expected.clone(), Arc::clone(&counted));
                let service = service_fn(move |request| {
                    let answer = respond(&request, &expected, &granted);
                    async move { Ok::<_, io::Error>(answer) }
                });
                // A client that leaves in the middle is no fault here.
                tokio::spawn(async move {
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Ok(Self { port, token, granted, task: task.abort_handle() })
    }

    /// Calls that came with the token.
    pub(super) fn granted(&self) -> u64 {
        self.granted.load(Ordering::Relaxed)
    }
}

fn respond(request: &Request<Incoming>, expected: &str, granted: &AtomicU64) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if path == "/" {
        return Response::new(Bytes::from_static(b"hello from the host\n").into());
    }
    let presented = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    if presented != Some(expected) {
        let mut refused = Response::new(Full::default());
        *refused.status_mut() = StatusCode::UNAUTHORIZED;
        return refused;
    }
    granted.fetch_add(1, Ordering::Relaxed);
    match path {
        "/echo" => Response::new(Bytes::from(format!("you sent {:?}\n", request.headers())).into()),
        _ => Response::new(Bytes::from_static(b"{\"login\": \"octocat\"}\n").into()),
    }
}
