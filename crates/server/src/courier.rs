//! Takes webhook messages out over HTTP: connects where it was decided, checks certificates, follows nothing, and reads
//! no more of an answer than is kept.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use engine::{Answer, Courier, Letter, Undelivered};
use gateway::{Blocked, Way};
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::http1,
    rt::{Read, Write},
};
use hyper_util::rt::TokioIo;
use model::{
    egress::Host,
    webhook::{Receivers, WebhookUrl},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{IpAddr as TlsAddress, ServerName},
};
use tokio::{net::TcpStream, sync::OnceCell, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// How long each of looking a name up, connecting, and TLS may take.
const STEP: Duration = Duration::from_secs(5);
/// How long an attempt may take. Receivers are expected to answer first and work afterwards.
const WHOLE: Duration = Duration::from_secs(15);
/// How long the body of an answer is waited for: it is only shown.
const BODY: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read: what is kept of it is shorter.
const MAX_BODY: usize = 2048;
/// Bytes of the head of an answer.
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// See the module.
pub(crate) struct HttpCourier {
    way: Way,
    /// Made with the first message that needs it: the certificates of the host are many.
    tls: OnceCell<TlsConnector>,
}

impl HttpCourier {
    /// To these receivers, asking this resolver or the host's.
    pub(crate) fn new(resolver: Option<SocketAddr>, receivers: Receivers) -> io::Result<Self> {
        Ok(Self { way: Way::new(resolver, receivers, STEP)?, tls: OnceCell::new() })
    }

    async fn attempt(&self, letter: &Letter) -> Result<Answer, Undelivered> {
        let url = &letter.url;
        let stream = self.way.connect(&url.host, url.port).await.map_err(blocked)?;
        if !url.tls {
            return exchange(TokioIo::new(stream), letter).await;
        }
        exchange(TokioIo::new(self.secured(url, stream).await?), letter).await
    }

    async fn secured(
        &self,
        url: &WebhookUrl,
        stream: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Undelivered> {
        let name = match &url.host {
            Host::Name(name) => {
                ServerName::try_from(name.clone()).map_err(|error| Undelivered::Tls(error.to_string()))?
            }
            Host::Address(address) => ServerName::IpAddress(TlsAddress::from(*address)),
        };
        let failed = |why: String| Undelivered::Tls(why);
        let made = || async {
            let made = tokio::task::spawn_blocking(connector).await.map_err(|error| failed(error.to_string()))?;
            made.map_err(|error| failed(error.to_string()))
        };
        let tls = self.tls.get_or_try_init(made).await?;
        timeout(STEP, tls.connect(name, stream))
            .await
            .map_err(|_| Undelivered::Tls("it took too long".to_owned()))?
            .map_err(|error| Undelivered::Tls(error.to_string()))
    }
}

/// Trusts what this host trusts.
fn connector() -> Result<TlsConnector, rustls::Error> {
    let mut roots = RootCertStore::empty();
    // Single certificates that cannot be read are missed by what they have signed, and that is told then.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

#[async_trait]
impl Courier for HttpCourier {
    async fn carry(&self, letter: &Letter) -> Result<Answer, Undelivered> {
        timeout(WHOLE, self.attempt(letter)).await.unwrap_or(Err(Undelivered::TimedOut))
    }
}

fn blocked(blocked: Blocked) -> Undelivered {
    match blocked {
        Blocked::Refused(refused) => Undelivered::Refused(refused.detail),
        Blocked::Unresolved(refused) => Undelivered::Unresolved(refused.detail),
        Blocked::Failed { address, source } => Undelivered::Unconnected { address, why: source.to_string() },
        Blocked::Own(error) => {
            tracing::error!(%error, "this host's own addresses are not known; no webhook is sent");
            Undelivered::Unconnected {
                address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                why: "a fault of the server".to_owned(),
            }
        }
    }
}

/// One request and the beginning of its answer; the connection ends with it.
async fn exchange<T>(io: T, letter: &Letter) -> Result<Answer, Undelivered>
where
    T: Read + Write + Unpin + Send + 'static,
{
    let request = request(letter).ok_or(Undelivered::NoAnswer)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .handshake(io)
        .await
        .map_err(|_| Undelivered::NoAnswer)?;
    let _driving = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request).await.map_err(|_| Undelivered::NoAnswer)?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    // An answer is known by its head: a body that does not come to its end takes nothing back.
    let _ = timeout(BODY, beginning(response.into_body(), &mut body)).await;
    Ok(Answer { status, body })
}

async fn beginning(mut incoming: Incoming, body: &mut Vec<u8>) {
    while body.len() < MAX_BODY
        && let Some(Ok(frame)) = incoming.frame().await
    {
        let Ok(data) = frame.into_data() else { continue };
        body.extend_from_slice(&data[..data.len().min(MAX_BODY - body.len())]);
    }
}

fn request(letter: &Letter) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(letter.url.target())
        .header(header::HOST, letter.url.authority())
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header(header::USER_AGENT, HeaderValue::from_static(concat!("enclave/", env!("CARGO_PKG_VERSION"))))
        .header(header::CONNECTION, HeaderValue::from_static("close"));
    for (name, value) in &letter.headers {
        request = request.header(*name, value);
    }
    request.body(Full::new(Bytes::from(letter.body.clone()))).ok()
}
