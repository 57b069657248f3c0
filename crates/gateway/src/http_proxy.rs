//! HTTP from a client: as to a proxy, as to a binding's base URL, or inside a connection that is for one name. Each
//! request is decided on its own.

mod forward;
mod target;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::egress::{Host, Reason, Refused};
use tokio::net::TcpStream;

use crate::{
    answer::{Body, failure, problem, whole},
    bindings::Bindings,
    captured,
    first::Client,
    guard::{Guard, MAX_HEADERS, REFUSED},
    outside::Unreached,
    session::{By, Session, destination},
    tunnel,
};

pub(crate) use target::{Target, target};

/// How long a head may take to come, and how long a connection may wait for its next one. Clients that keep
/// connections take their end between two requests for granted.
const HEAD_PATIENCE: Duration = Duration::from_mins(1);
/// Longest path that is told.
const TOLD_PATH_BYTES: usize = 200;

/// The code of a refusal's problem document.
pub(crate) const DENIED: &str = "egress_denied";

/// What a client is taken for.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    /// One that knows that it speaks with a proxy, or with a binding's base URL.
    Proxy,
    /// One that speaks, through a tunnel, with this name alone.
    Within { name: String, port: u16 },
    /// One that does not know of any gateway, and is on its way to this address.
    Caught(SocketAddr),
    /// One that is refused whatever it asks for; that was told already.
    Refusing(Refused),
}

/// A CONNECT that was answered, waiting for the server to let go of the connection.
struct Opened {
    host: Host,
    port: u16,
    upstream: TcpStream,
    attempted: String,
}

/// All that a request needs.
struct Proxy {
    session: Arc<Session>,
    mode: Mode,
    opened: Mutex<Option<Opened>>,
}

/// Serves a client to its end.
pub(crate) async fn serve(session: &Arc<Session>, client: Client, mode: Mode) {
    let proxy = Arc::new(Proxy { session: session.clone(), mode, opened: Mutex::new(None) });
    let answering = proxy.clone();
    let service = service_fn(move |request| {
        let proxy = answering.clone();
        Box::pin(async move { Ok::<_, Infallible>(proxy.answer(request).await) })
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_headers(MAX_HEADERS)
        .serve_connection(
            TokioIo::new(Guard::new(
                client,
                Duration::from_millis(session.outside.limits.idle_ms),
                session.bulk.clone(),
            )),
            service,
        )
        .without_shutdown()
        .await;
    let parts = match served {
        Ok(parts) => parts,
        Err(error) => {
            tracing::debug!(%error, "a client's connection broke");
            return;
        }
    };
    let opened = proxy.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(Opened { host, port, upstream, attempted }) = opened else { return };
    let client = parts.io.into_inner().into_client(&parts.read_buf);
    tunnel::carry(session, client, upstream, host, port, attempted).await;
}

impl Proxy {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if let Mode::Refusing(refused) = &self.mode {
            return closing(problem(StatusCode::FORBIDDEN, DENIED, refused));
        }
        if request.method().as_str() == REFUSED {
            let fault = request.uri().path().trim_start_matches('/').replace('_', " ");
            return self.malformed(&fault).await;
        }
        match target(request.method(), request.uri(), request.headers()) {
            Err(fault) => self.malformed(fault).await,
            Ok(Target::Tunnel { host, port }) => self.connect(host, port).await,
            Ok(Target::Absolute { host, port, other }) => self.plain(request, host, port, other).await,
            Ok(Target::Origin { host, port }) => self.origin(request, host, port).await,
        }
    }

    /// A request that is not one, or could be two.
    async fn malformed(&self, fault: &str) -> Response<Body> {
        let refused = Refused::flat(Reason::NotRecognised, format!("this request is malformed: {fault}"));
        self.session.teller.denied("http request", &refused).await;
        closing(problem(StatusCode::BAD_REQUEST, "malformed_request", &refused))
    }

    async fn deny(&self, attempted: &str, refused: &Refused) -> Response<Body> {
        self.session.teller.denied(attempted, refused).await;
        problem(StatusCode::FORBIDDEN, DENIED, refused)
    }

    async fn connect(&self, host: Host, port: u16) -> Response<Body> {
        let attempted = format!("connect tcp {}", destination(&host, port));
        match &self.mode {
            Mode::Proxy => {}
            Mode::Within { .. } | Mode::Caught(_) | Mode::Refusing(_) => {
                let refused = Refused::flat(Reason::NotCarried, "this is no proxy");
                return closing(self.deny(&attempted, &refused).await);
            }
        }
        if bound(&host).is_some() {
            let detail =
                format!("a binding is called as http://{host}, without TLS: its traffic never leaves the host");
            return closing(self.deny(&attempted, &Refused::flat(Reason::Binding, detail)).await);
        }
        match self.session.reach(&host, port, By::Connect, &attempted).await {
            Ok(upstream) => {
                let opened = Opened { host, port, upstream, attempted };
                *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
                Response::new(whole(""))
            }
            Err(unreached) => closing(unreachable(&unreached, &destination(&host, port))),
        }
    }

    /// A request to a proxy.
    async fn plain(&self, request: Request<Incoming>, host: Host, port: u16, other: Option<String>) -> Response<Body> {
        let attempted = attempted(request.method(), &host, port, request.uri().path());
        if let Some(other) = other {
            let detail = format!("the Host header says {other}, and the request line {}", destination(&host, port));
            return closing(self.deny(&attempted, &Refused::flat(Reason::OtherName, detail)).await);
        }
        match &self.mode {
            Mode::Proxy => match bound(&host) {
                Some(name) => self.session.bindings.serve(name, request).await,
                None => self.reach_and_forward(request, host, port, &attempted).await,
            },
            // A server takes its own name in the request line, too.
            Mode::Within { .. } | Mode::Caught(_) => self.origin(request, host, port).await,
            Mode::Refusing(refused) => problem(StatusCode::FORBIDDEN, DENIED, refused),
        }
    }

    /// A request to a server.
    async fn origin(&self, request: Request<Incoming>, host: Host, port: u16) -> Response<Body> {
        let attempted = attempted(request.method(), &host, port, request.uri().path());
        match &self.mode {
            Mode::Proxy => {
                if let Some(name) = bound(&host) {
                    return self.session.bindings.serve(name, request).await;
                }
                let detail = "this is a proxy; it takes requests with a whole URL, or for a binding";
                closing(self.deny(&attempted, &Refused::flat(Reason::NotRecognised, detail)).await)
            }
            Mode::Within { name, port: own } => {
                // A client that thinks of the port as TLS's names none.
                if host != Host::Name(name.clone()) || (port != *own && port != target::HTTP) {
                    let detail = format!("the Host header says {}, not {name}:{own}", destination(&host, port));
                    return closing(self.deny(&attempted, &Refused::flat(Reason::OtherName, detail)).await);
                }
                self.reach_and_forward(request, host, *own, &attempted).await
            }
            Mode::Caught(address) => self.caught(request, host, port, *address, &attempted).await,
            Mode::Refusing(refused) => problem(StatusCode::FORBIDDEN, DENIED, refused),
        }
    }

    /// A request on its way to an address, which has to be one of the address's names.
    async fn caught(
        &self,
        request: Request<Incoming>,
        host: Host,
        port: u16,
        to: SocketAddr,
        attempted: &str,
    ) -> Response<Body> {
        let names = captured::named(&self.session, to).unwrap_or_default();
        let known = matches!(&host, Host::Name(name) if names.contains(name));
        if !known || port != to.port() {
            let detail = format!("the Host header says {}, which was not resolved to {to}", destination(&host, port));
            return closing(self.deny(attempted, &Refused::flat(Reason::OtherName, detail)).await);
        }
        if let Some(refused) = upgrade(&request) {
            return self.deny(attempted, &refused).await;
        }
        let reached = self.session.reach_at(&host, port, to.ip(), By::Http, attempted).await;
        self.forward(reached, request, &host, port, attempted).await
    }

    async fn reach_and_forward(
        &self,
        request: Request<Incoming>,
        host: Host,
        port: u16,
        attempted: &str,
    ) -> Response<Body> {
        if let Some(refused) = upgrade(&request) {
            self.session.teller.denied(attempted, &refused).await;
            return problem(StatusCode::NOT_IMPLEMENTED, DENIED, &refused);
        }
        let reached = self.session.reach(&host, port, By::Http, attempted).await;
        self.forward(reached, request, &host, port, attempted).await
    }

    async fn forward(
        &self,
        reached: Result<TcpStream, Unreached>,
        request: Request<Incoming>,
        host: &Host,
        port: u16,
        attempted: &str,
    ) -> Response<Body> {
        let answered = match reached {
            Ok(upstream) => forward::forward(&self.session, upstream, request, &in_url(host, port), attempted)
                .await
                .map_err(Unreached::Failed),
            Err(unreached) => Err(unreached),
        };
        answered.unwrap_or_else(|unreached| unreachable(&unreached, &destination(host, port)))
    }
}

/// Why a request that wants another protocol is refused. One that would be content with HTTP is not.
fn upgrade(request: &Request<Incoming>) -> Option<Refused> {
    let wants = request
        .headers()
        .get_all(header::UPGRADE)
        .iter()
        .any(|value| value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains("websocket")));
    wants.then(|| {
        let detail = "WebSockets are not carried over plain HTTP; use wss, or CONNECT";
        Refused::flat(Reason::NotCarried, detail)
    })
}

/// The binding that is meant.
pub(crate) fn bound(host: &Host) -> Option<&str> {
    match host {
        Host::Name(name) => Bindings::name_of(name),
        Host::Address(_) => None,
    }
}

/// A request as it is told: without its query, which may hold anything.
fn attempted(method: &Method, host: &Host, port: u16, path: &str) -> String {
    let path = &path[..path.floor_char_boundary(TOLD_PATH_BYTES)];
    format!("http {method} http://{}{path}", in_url(host, port))
}

/// A host and a port as URLs and Host headers have them: the port of `http` goes without saying.
fn in_url(host: &Host, port: u16) -> String {
    let shown = destination(host, port);
    match shown.strip_suffix(":80") {
        Some(bare) => bare.to_owned(),
        None => shown,
    }
}

/// The answer when there is no connection.
fn unreachable(unreached: &Unreached, shown: &str) -> Response<Body> {
    match unreached {
        Unreached::Refused(refused) if refused.reason == Reason::NotResolved => {
            problem(StatusCode::BAD_GATEWAY, "not_resolved", refused)
        }
        Unreached::Refused(refused) => problem(StatusCode::FORBIDDEN, DENIED, refused),
        Unreached::Failed(error) => {
            let late = error.kind() == io::ErrorKind::TimedOut;
            let status = if late { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::BAD_GATEWAY };
            failure(status, "upstream_unreachable", &format!("{shown} is allowed, but not reached: {error}"))
        }
    }
}

/// An answer that is the last one.
fn closing(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}
