//! What lies outside of the sandboxes in these tests: an HTTP and an HTTPS server and a DNS server on this host, which
//! remember what reached them. A deployment that permits their ports stands in for the internet.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType, rdata::A},
    serialize::binary::{BinDecodable as _, BinEncodable as _},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, StatusCode, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpSocket, UdpSocket},
};
use tokio_rustls::TlsAcceptor;

/// Names of it: who may be reached, and who may not. All of them lead to this host.
pub(crate) const ALLOWED: &str = "allowed.test";
/// Resolves to a metadata service.
const META: &str = "meta.test";
/// Resolves to this host first and to a metadata service from then on.
const REBIND: &str = "rebind.test";
/// Resolves to a private address.
const PRIVATE: &str = "private.test";

/// The one package of its indexes: of Python's and of Node's.
const WHEEL: &str = "hello_enclave-1.0-py3-none-any.whl";
const TARBALL: &str = "hello-enclave-1.0.0.tgz";

const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// What a request said, as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// See the module. Ends with its last user.
pub(crate) struct World {
    pub(crate) http: SocketAddr,
    /// The same over IPv6, where this host has it.
    pub(crate) http6: Option<SocketAddr>,
    pub(crate) https: SocketAddr,
    /// Sends to whoever connects, without an end.
    pub(crate) source: SocketAddr,
    pub(crate) dns: SocketAddr,
    /// A service of this host that no deployment permits.
    pub(crate) forbidden: SocketAddr,
    pub(crate) ca_pem: String,
    /// What it answers at `/flag`.
    pub(crate) flag: Arc<Mutex<String>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    resolved: Arc<Mutex<Vec<String>>>,
    trespassers: Arc<Mutex<u32>>,
    drinkers: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        let loopback = (Ipv4Addr::LOCALHOST, 0);
        // The sandbox has a loopback of its own: what is captured on its way there never leaves.
        let address = own_address().unwrap_or(Ipv4Addr::LOCALHOST);
        let here = (address, 0);
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let flag = Arc::<Mutex<String>>::default();
        let (ca_pem, tls) = certificates(address);
        let plain = TcpListener::bind(here).await.unwrap();
        let secure = TcpListener::bind(here).await.unwrap();
        let source = TcpSocket::new_v4().unwrap();
        source.bind(here.into()).unwrap();
        // Whoever is busy pouring does not accept, and the kernel lets no more wait than this.
        let source = source.listen(1024).unwrap();
        let source_address = source.local_addr().unwrap();
        let drinkers = Arc::<AtomicUsize>::default();
        let forbidden = TcpListener::bind(loopback).await.unwrap();
        let dns = UdpSocket::bind(loopback).await.unwrap();
        let resolved = Arc::<Mutex<Vec<String>>>::default();
        let trespassers = Arc::<Mutex<u32>>::default();
        let addresses = (plain.local_addr().unwrap(), secure.local_addr().unwrap());
        let (dns_address, forbidden_address) = (dns.local_addr().unwrap(), forbidden.local_addr().unwrap());
        let http6 = match own_ipv6_address() {
            Some(address) => Some(TcpListener::bind((address, 0)).await.unwrap()),
            None => None,
        };
        let http6_address = http6.as_ref().map(|listener| listener.local_addr().unwrap());
        let plain6 = http6.map(|listener| tokio::spawn(serve(listener, None, Arc::clone(&seen), Arc::clone(&flag))));
        let mut tasks = vec![
            tokio::spawn(serve(plain, None, Arc::clone(&seen), Arc::clone(&flag))),
            tokio::spawn(serve(secure, Some(tls), Arc::clone(&seen), Arc::clone(&flag))),
            tokio::spawn(answer(dns, address, Arc::clone(&resolved))),
            tokio::spawn(watch(forbidden, Arc::clone(&trespassers))),
            tokio::spawn(pour(source, Arc::clone(&drinkers))),
        ];
        tasks.extend(plain6);
        Self {
            http: addresses.0,
            http6: http6_address,
            https: addresses.1,
            source: source_address,
            drinkers,
            dns: dns_address,
            forbidden: forbidden_address,
            ca_pem,
            flag,
            seen,
            resolved,
            trespassers,
            tasks,
        }
    }

    /// What a server is told so that it lets sessions come here.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let (address, http, https) = (self.http.ip(), self.http.port(), self.https.port());
        let source = self.source.port();
        let also = self.http6.map(|six| format!(",{}/128:{}", six.ip(), six.port())).unwrap_or_default();
        vec![
            format!("--egress-permit={address}/32:{http},{address}/32:{https},{address}/32:{source}{also}"),
            format!("--egress-resolver={}", self.dns),
        ]
    }

    /// Puts this world's ports into a text.
    pub(crate) fn fill(&self, text: &str) -> String {
        text.replace("{HTTP_PORT}", &self.http.port().to_string())
            .replace("{HTTPS_PORT}", &self.https.port().to_string())
            .replace("{SOURCE_PORT}", &self.source.port().to_string())
            .replace("{WORLD}", &self.http.ip().to_string())
            .replace("{FORBIDDEN_PORT}", &self.forbidden.port().to_string())
    }

    /// Every request so far.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Every name that was asked for.
    pub(crate) fn resolved(&self) -> Vec<String> {
        self.resolved.lock().unwrap().clone()
    }

    /// Connections to the source, now.
    pub(crate) fn drinkers(&self) -> usize {
        self.drinkers.load(Ordering::Relaxed)
    }

    /// Connections to the service that nobody may reach.
    pub(crate) fn trespassers(&self) -> u32 {
        *self.trespassers.lock().unwrap()
    }
}

/// A CA and what a server needs to be any of these names.
fn certificates(address: Ipv4Addr) -> (String, TlsAcceptor) {
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    // With the name of the other certificate it would seem to have signed itself.
    ca.distinguished_name.push(rcgen::DnType::CommonName, "the world's CA");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let ca_certificate = ca.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(ca, key);
    let names = [ALLOWED, "other.test", "api.test", &address.to_string()].map(ToOwned::to_owned).to_vec();
    let own = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&own, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(own.serialize_der().into()))
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    (ca_certificate.pem(), TlsAcceptor::from(Arc::new(config)))
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, seen: Arc<Mutex<Vec<Seen>>>, flag: Arc<Mutex<String>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, seen, flag) = (tls.clone(), Arc::clone(&seen), Arc::clone(&flag));
        tokio::spawn(async move {
            let service = service_fn(move |request| respond(request, Arc::clone(&seen), Arc::clone(&flag)));
            let http = hyper::server::conn::http1::Builder::new();
            match tls {
                // Clients that leave in the middle are no fault here.
                None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        drop(http.serve_connection(TokioIo::new(stream), service).await);
                    }
                }
            }
        });
    }
}

async fn respond(
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<Seen>>>,
    flag: Arc<Mutex<String>>,
) -> io::Result<Response<Full<Bytes>>> {
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: Vec<_> = request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let path = request.uri().to_string();
    let method = request.method().to_string();
    seen.lock().unwrap().push(Seen { path: path.clone(), headers: headers.clone() });
    let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    let (plain, query) = path.split_once('?').unwrap_or((&path, ""));
    let mut response = match plain {
        "/echo" => {
            let headers: HashMap<_, _> = headers.into_iter().collect();
            let body = String::from_utf8_lossy(&body);
            Response::new(serde_json::json!({"path": path, "headers": headers, "body": body}).to_string().into())
        }
        "/flag" => Response::new(flag.lock().unwrap().clone().into()),
        "/simple/hello-enclave/" => {
            let mut page = Response::new(Full::from(format!("<a href=\"/{WHEEL}\">{WHEEL}</a>")));
            page.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("text/html"));
            page
        }
        path if path.trim_start_matches('/') == WHEEL => {
            Response::new(Bytes::from_static(include_bytes!("../shared/hello_enclave-1.0-py3-none-any.whl")).into())
        }
        "/hello-enclave" => {
            let host = headers.iter().find(|(name, _)| name == "host").map_or("", |(_, host)| host);
            let version = serde_json::json!({
                "name": "hello-enclave", "version": "1.0.0",
                "dist": {"tarball": format!("https://{host}/{TARBALL}")},
            });
            let package = serde_json::json!({
                "name": "hello-enclave", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version},
            });
            Response::new(package.to_string().into())
        }
        path if path.trim_start_matches('/') == TARBALL => {
            Response::new(Bytes::from_static(include_bytes!("../shared/hello-enclave-1.0.0.tgz")).into())
        }
        "/redirect" => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::FOUND;
            response.headers_mut().insert("location", query.parse().map_err(io::Error::other)?);
            response
        }
        _ => Response::new(format!("hello from the world: {method} {path}\n").into()),
    };
    response.headers_mut().insert("x-world", hyper::header::HeaderValue::from_static("here"));
    Ok(response)
}

async fn watch(listener: TcpListener, trespassers: Arc<Mutex<u32>>) {
    while listener.accept().await.is_ok() {
        *trespassers.lock().unwrap() += 1;
    }
}

async fn pour(listener: TcpListener, drinkers: Arc<AtomicUsize>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let drinkers = Arc::clone(&drinkers);
        tokio::spawn(async move {
            drinkers.fetch_add(1, Ordering::Relaxed);
            while stream.write_all(&[0; 16 << 10]).await.is_ok() {}
            drinkers.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn answer(socket: UdpSocket, here: Ipv4Addr, resolved: Arc<Mutex<Vec<String>>>) {
    let mut buffer = [0; 4096];
    loop {
        let (length, asker) = socket.recv_from(&mut buffer).await.unwrap();
        let Ok(query) = Message::from_bytes(&buffer[..length]) else { continue };
        let answer = reply(&query, here, &resolved);
        if let Ok(bytes) = answer.to_bytes() {
            let _ = socket.send_to(&bytes, asker).await;
        }
    }
}

fn reply(query: &Message, here: Ipv4Addr, resolved: &Mutex<Vec<String>>) -> Message {
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    for question in &query.queries {
        answer.add_query(question.clone());
        let name = question.name().to_utf8().trim_end_matches('.').to_ascii_lowercase();
        let mut asked = resolved.lock().unwrap();
        let before = asked.iter().filter(|earlier| **earlier == name).count();
        if question.query_type() != RecordType::A {
            continue;
        }
        asked.push(name.clone());
        let address = match name.as_str() {
            META => METADATA,
            REBIND if before > 0 => METADATA,
            PRIVATE => Ipv4Addr::new(10, 1, 2, 3),
            name if name.rsplit('.').next() == Some("test") => here,
            _ => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                continue;
            }
        };
        // Never to be kept: the next question is to reach this server again.
        answer.add_answer(Record::from_rdata(question.name().clone(), 0, RData::A(A(address))));
    }
    answer
}

/// An address of this host that is not loopback, if it has one.
pub(crate) fn own_address() -> Option<Ipv4Addr> {
    match source_towards((Ipv4Addr::UNSPECIFIED, 0), (Ipv4Addr::new(192, 0, 2, 1), 9))? {
        IpAddr::V4(address) if !address.is_unspecified() && !address.is_loopback() => Some(address),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

fn own_ipv6_address() -> Option<Ipv6Addr> {
    let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    match source_towards((Ipv6Addr::UNSPECIFIED, 0), (documentation, 9))? {
        IpAddr::V6(address) if !address.is_unspecified() && !address.is_loopback() => Some(address),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// Sends nothing: only a route is looked up.
fn source_towards(from: impl ToSocketAddrs, to: impl ToSocketAddrs) -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
