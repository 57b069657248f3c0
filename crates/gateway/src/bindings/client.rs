//! Connections to services, kept alive and used again. Each is made through [`Outside`], after the policy has seen the
//! address that it leads to.

use std::{
    error::Error,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Uri;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::{
        self, Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use model::egress::{Host, Refused};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, IpAddr as TlsAddress, ServerName, pem::PemObject as _},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::origin::Origin;
use crate::outside::{Outside, permitted};

/// How long a connection that carries nothing is kept. Servers close theirs after five seconds to a few minutes; one that
/// was just closed is noticed and tried anew.
const KEPT: Duration = Duration::from_secs(30);

/// Connections to one service that are kept.
const MAX_KEPT: usize = 32;

/// The body of a request.
pub(super) type Outgoing = UnsyncBoxBody<Bytes, io::Error>;

/// The client of one service.
pub(super) type ServiceClient = Client<Connector, Outgoing>;

/// Connects to one service, whatever the request says.
#[derive(Clone)]
pub(super) struct Connector {
    outside: Arc<Outside>,
    origin: Arc<Origin>,
    tls: Option<TlsConnector>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unconnected {
    /// The policy, or its name.
    #[error("{}", .0.detail)]
    Refused(Refused),
    /// The network.
    #[error("it cannot be connected to: {0}")]
    Failed(io::Error),
    /// TLS.
    #[error("no TLS with it: {0}")]
    Tls(io::Error),
}

/// A connection to a service.
pub(super) enum Wire {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

/// Certificates that are trusted.
#[derive(Clone, Debug)]
pub(super) struct Roots(RootCertStore);

impl Roots {
    /// Those of the host.
    pub(super) fn of_host() -> Self {
        let mut roots = RootCertStore::empty();
        // Single certificates that cannot be read are missed by what they have signed, and that is told then.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self(roots)
    }

    /// None.
    pub(super) fn none() -> Self {
        Self(RootCertStore::empty())
    }

    /// These, and the ones of a PEM text.
    pub(super) fn with_pem(&self, pem: &str) -> Result<Self, &'static str> {
        let mut roots = self.0.clone();
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|_| "its certificates cannot be read")?;
            roots.add(certificate).map_err(|_| "its certificates cannot be read")?;
        }
        if roots.len() == before { Err("its certificates are none") } else { Ok(Self(roots)) }
    }

    fn connector(&self) -> Result<TlsConnector, &'static str> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| "there is no TLS")?
            .with_root_certificates(self.0.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// A client for the service at `origin`.
pub(super) fn client(origin: Arc<Origin>, outside: Arc<Outside>, roots: &Roots) -> Result<ServiceClient, &'static str> {
    let tls = if origin.is_tls { Some(roots.connector()?) } else { None };
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(KEPT)
        .pool_max_idle_per_host(MAX_KEPT)
        .timer(TokioTimer::new())
        .build(Connector { outside, origin, tls }))
}

/// Why a request failed, in words that name no part of it.
pub(super) fn failure(error: &legacy::Error) -> String {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(inner) = source {
        if let Some(unconnected) = inner.downcast_ref::<Unconnected>() {
            return unconnected.to_string();
        }
        source = inner.source();
    }
    if error.is_connect() {
        "it cannot be connected to".to_owned()
    } else {
        "it gave no answer that is HTTP".to_owned()
    }
}

/// The refusal behind a failure, if it is one.
pub(super) fn refusal(error: &legacy::Error) -> Option<&Refused> {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(inner) = source {
        if let Some(Unconnected::Refused(refused)) = inner.downcast_ref::<Unconnected>() {
            return Some(refused);
        }
        source = inner.source();
    }
    None
}

impl Connector {
    async fn connect(self) -> Result<Wire, Unconnected> {
        let port = self.origin.port;
        let addresses = self.outside.addresses(&self.origin.host).await.map_err(Unconnected::Refused)?;
        let addresses = permitted(addresses, |address| self.outside.policy.upstream(*address, port))
            .map_err(Unconnected::Refused)?;
        let stream = self.outside.connect(&addresses, port).await.map_err(Unconnected::Failed)?;
        let Some(tls) = &self.tls else { return Ok(Wire::Plain(TokioIo::new(stream))) };
        let name = match &self.origin.host {
            Host::Name(name) => {
                ServerName::try_from(name.clone()).map_err(|_| Unconnected::Tls(io::ErrorKind::InvalidInput.into()))?
            }
            Host::Address(address) => ServerName::IpAddress(TlsAddress::from(*address)),
        };
        let patience = Duration::from_millis(self.outside.limits.connect_ms);
        let stream = timeout(patience, tls.connect(name, stream))
            .await
            .map_err(|_| Unconnected::Tls(io::ErrorKind::TimedOut.into()))?
            .map_err(Unconnected::Tls)?;
        Ok(Wire::Tls(Box::new(TokioIo::new(stream))))
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = Wire;
    type Error = Unconnected;
    type Future = Pin<Box<dyn Future<Output = Result<Wire, Unconnected>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unconnected>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        let is_http2 = match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.inner().get_ref().1.alpn_protocol() == Some(b"h2"),
        };
        if is_http2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl Read for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bytes),
        }
    }
}
