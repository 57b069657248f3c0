//! TLS outside, and in clients.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::UnixStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use crate::upstream::{Upstream, request};

/// A server with a certificate, and what its clients trust.
pub(crate) struct Tls {
    pub(crate) upstream: Upstream,
    roots: RootCertStore,
}

impl Tls {
    /// Answers each request with `hello`.
    pub(crate) async fn hello(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let certificate = made.cert.der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let upstream = Upstream::start(move |stream, heard| {
            let acceptor = acceptor.clone();
            async move {
                heard.lock().unwrap().push("connected".to_owned());
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                while let Some(request) = request(&mut stream).await {
                    heard.lock().unwrap().push(request);
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
                }
            }
        })
        .await;
        Self { upstream, roots }
    }

    pub(crate) fn port(&self) -> u16 {
        self.upstream.port()
    }

    /// A client's handshake.
    pub(crate) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        name: &'static str,
    ) -> std::io::Result<TlsStream<S>> {
        let config = ClientConfig::builder().with_root_certificates(self.roots.clone()).with_no_client_auth();
        TlsConnector::from(Arc::new(config)).connect(name.try_into().unwrap(), stream).await
    }

    /// A handshake, a request, and its answer.
    pub(crate) async fn get(&self, stream: UnixStream, name: &'static str) -> std::io::Result<String> {
        let mut stream = self.handshake(stream, name).await?;
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n").as_bytes()).await?;
        let mut answer = [0; 43];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}
