//! Services that the tests start, on loopback.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

pub(super) type Sent = BoxBody<Bytes, io::Error>;
type Answering = Pin<Box<dyn Future<Output = Response<Sent>> + Send>>;
type Handler = Arc<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>;

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A service that keeps what it was asked.
pub(super) struct Upstream {
    pub(super) url: String,
    pub(super) ca_pem: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
}

pub(super) fn text(body: impl Into<Bytes>) -> Response<Sent> {
    Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed())
}

impl Upstream {
    /// Answers each request, after its whole body has come.
    pub(super) async fn answering(answer: impl Fn(&Seen) -> Response<Sent> + Send + Sync + 'static) -> Self {
        Self::start(Tls::No, answer).await
    }

    pub(super) async fn over_tls(answer: impl Fn(&Seen) -> Response<Sent> + Send + Sync + 'static) -> Self {
        Self::start(Tls::Yes, answer).await
    }

    async fn start(tls: Tls, answer: impl Fn(&Seen) -> Response<Sent> + Send + Sync + 'static) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (kept, answer) = (seen.clone(), Arc::new(answer));
        let handler: Handler = Arc::new(move |request| {
            let (kept, answer) = (kept.clone(), answer.clone());
            Box::pin(async move {
                let (parts, body) = request.into_parts();
                let Ok(body) = body.collect().await else { return text("") };
                let one = Seen {
                    method: parts.method.to_string(),
                    target: parts.uri.path_and_query().map_or_else(|| parts.uri.to_string(), ToString::to_string),
                    version: parts.version,
                    headers: parts.headers,
                    body: body.to_bytes(),
                };
                kept.lock().unwrap().push(one.clone());
                answer(&one)
            })
        });
        Self { seen, ..Self::handling(tls, handler).await }
    }

    /// Answers as soon as a request comes.
    pub(super) async fn at_once(handler: impl Fn(Request<Incoming>) -> Answering + Send + Sync + 'static) -> Self {
        Self::handling(Tls::No, Arc::new(handler)).await
    }

    async fn handling(tls: Tls, handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let connections: Arc<Mutex<usize>> = Arc::default();
        let (acceptor, ca_pem) = match tls {
            Tls::No => (None, String::new()),
            Tls::Yes => {
                let (acceptor, pem) = certified();
                (Some(acceptor), pem)
            }
        };
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                *counted.lock().unwrap() += 1;
                let (acceptor, handler) = (acceptor.clone(), handler.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, handler).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, handler).await;
                            }
                        }
                    }
                });
            }
        });
        Self { url: format!("{scheme}://{address}"), ca_pem, seen: Arc::default(), connections }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    #[track_caller]
    pub(super) fn last(&self) -> Seen {
        self.seen().last().expect("it was asked").clone()
    }

    pub(super) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

#[derive(Clone, Copy)]
enum Tls {
    No,
    Yes,
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, handler: Handler) {
    let service = service_fn(move |request| {
        let answer = handler(request);
        async move { Ok::<_, io::Error>(answer.await) }
    });
    // Clients go away as they like.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

/// A server with a certificate for 127.0.0.1, and the authority that has signed it.
fn certified() -> (TlsAcceptor, String) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (TlsAcceptor::from(Arc::new(config)), ca_pem)
}
