//! What the streams of a session share, and the one way from them to the outside: decided, told, connected, in that
//! order.

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use model::egress::{Host, Reason, Refused};
use protocol::{
    Decoder,
    egress::{MAX_OPENING_BYTES, Opening},
};
use serde_json::json;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpStream, UnixStream},
    time::timeout,
};
use wire::{AuditSource, AuditType};

use crate::{
    bindings::Bindings,
    captured, dns,
    first::Client,
    http_proxy::{self, Mode},
    outside::{Outside, TRIED_ADDRESSES, Unreached},
    pins::Pins,
    relay::BulkPlaces,
    socks,
    tell::Teller,
};

/// How long a stream may take to say what it is for. An honest runner says it at once.
const OPENING_PATIENCE: Duration = Duration::from_secs(10);

/// Length of a frame's prefix.
const PREFIX: usize = 4;

/// See the module.
pub(crate) struct Session {
    pub(crate) outside: Arc<Outside>,
    pub(crate) teller: Teller,
    pub(crate) bindings: Bindings,
    pub(crate) bulk: BulkPlaces,
    pins: Mutex<Pins>,
    /// Connections that were made.
    made: AtomicU64,
}

/// How a connection came to be, in its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Connect,
    Http,
    Socks,
    Tcp,
    Tls,
}

impl By {
    fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Http => "http",
            Self::Socks => "socks",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

impl Session {
    pub(crate) fn new(outside: Arc<Outside>, teller: Teller, bindings: Bindings) -> Self {
        Self { outside, teller, bindings, bulk: BulkPlaces::default(), pins: Mutex::default(), made: AtomicU64::new(0) }
    }

    /// Serves one stream to its end.
    pub(crate) async fn stream(self: &Arc<Self>, mut io: UnixStream) {
        let Ok(Some(opening)) = timeout(OPENING_PATIENCE, opening(&mut io)).await else {
            tracing::debug!("a stream did not open");
            return;
        };
        let client = Client::new(io);
        match opening {
            Opening::Http => http_proxy::serve(self, client, Mode::Proxy).await,
            Opening::Socks => socks::serve(self, client).await,
            Opening::Dns => dns::serve(self, client.io).await,
            Opening::Captured(destination) => captured::serve(self, client, destination).await,
            Opening::Attempt { protocol, destination } => captured::attempt(self, protocol, destination).await,
        }
    }

    /// The names that were resolved for this session, by their addresses.
    pub(crate) fn pins(&self) -> MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why there are no more connections, when it is for good.
    pub(crate) fn exhausted(&self) -> Option<Refused> {
        let limits = self.outside.limits;
        if self.made.load(Ordering::Relaxed) >= limits.total_connections {
            let most = limits.total_connections;
            return Some(Refused::flat(Reason::Quota, format!("the session has made all of its {most} connections")));
        }
        self.overspent()
    }

    fn overspent(&self) -> Option<Refused> {
        let most = self.outside.limits.bytes;
        (self.teller.bytes() >= most)
            .then(|| Refused::flat(Reason::Quota, format!("the session has used up its {most} bytes of traffic")))
    }

    /// Counts bytes that are about to go through; why they may not.
    pub(crate) fn spend(&self, bytes: usize) -> Result<(), Refused> {
        if let Some(refused) = self.overspent() {
            return Err(refused);
        }
        self.teller.count(bytes as u64);
        Ok(())
    }

    /// Decides, tells, connects.
    pub(crate) async fn reach(&self, host: &Host, port: u16, by: By, attempted: &str) -> Result<TcpStream, Unreached> {
        let decided = match self.exhausted() {
            Some(refused) => Err(refused),
            None => self.outside.decide(host, port).await,
        };
        self.settle(host, port, decided, by, attempted).await
    }

    /// The same of an address that was decided already: since then the session may have used up its connections.
    pub(crate) async fn reach_at(
        &self,
        host: &Host,
        port: u16,
        address: IpAddr,
        by: By,
        attempted: &str,
    ) -> Result<TcpStream, Unreached> {
        let decided = self.exhausted().map_or_else(|| Ok(vec![address]), Err);
        self.settle(host, port, decided, by, attempted).await
    }

    async fn settle(
        &self,
        host: &Host,
        port: u16,
        decided: Result<Vec<IpAddr>, Refused>,
        by: By,
        attempted: &str,
    ) -> Result<TcpStream, Unreached> {
        match decided {
            Ok(addresses) => self.connect(host, port, &addresses, by).await.map_err(Unreached::Failed),
            Err(refused) => {
                self.teller.denied(attempted, &refused).await;
                Err(Unreached::Refused(refused))
            }
        }
    }

    /// Tells and connects what was decided. Each address that is tried is told: which one it will be is not known
    /// before, and nothing is connected to that was not told.
    async fn connect(&self, host: &Host, port: u16, addresses: &[IpAddr], by: By) -> io::Result<TcpStream> {
        self.made.fetch_add(1, Ordering::Relaxed);
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses.iter().take(TRIED_ADDRESSES) {
            let data = json!({
                "destination": destination(host, port), "address": address.to_string(), "protocol": by.as_str(),
            });
            self.teller.tell(AuditType::EgressAllowed, AuditSource::Gateway, data, None).await;
            match self.outside.connect(&[*address], port).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

/// A host and a port, as people write them.
pub(crate) fn destination(host: &Host, port: u16) -> String {
    match host {
        Host::Address(IpAddr::V6(v6)) => format!("[{v6}]:{port}"),
        Host::Address(IpAddr::V4(_)) | Host::Name(_) => format!("{host}:{port}"),
    }
}

/// The opening of a stream; none when it says something else. Not a byte more is read.
async fn opening(io: &mut UnixStream) -> Option<Opening> {
    let mut frame = [0; MAX_OPENING_BYTES];
    io.read_exact(&mut frame[..PREFIX]).await.ok()?;
    let length = u32::from_be_bytes(*frame.first_chunk::<PREFIX>()?);
    let end = usize::try_from(length).ok()?.checked_add(PREFIX)?;
    io.read_exact(frame.get_mut(PREFIX..end)?).await.ok()?;
    parse_opening(&frame[..end])
}

/// One whole frame, and nothing behind it.
pub(crate) fn parse_opening(frame: &[u8]) -> Option<Opening> {
    if frame.len() > MAX_OPENING_BYTES {
        return None;
    }
    let mut decoder = Decoder::new();
    decoder.push(frame);
    let opening = decoder.next_frame().ok()??;
    (!decoder.is_mid_frame()).then_some(opening)
}

#[cfg(test)]
mod tests {
    use model::{egress::Policy, gateway::GatewayLimits};
    use tokio::{sync::mpsc, time::Instant};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_does_not_open_is_closed() {
        let outside = Arc::new(Outside::asking(None, Policy::default(), GatewayLimits::default()).unwrap());
        let teller = Teller::new(mpsc::channel(1).0);
        let bindings = Bindings::new(Vec::new(), outside.clone(), teller.clone());
        let session = Arc::new(Session::new(outside, teller, bindings));
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        let start = Instant::now();
        session.stream(ours).await;
        assert!(start.elapsed() >= OPENING_PATIENCE);
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
    }
}
