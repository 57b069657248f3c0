//! The server's end of a gateway's control socket: lines of JSON, bounded, typed, carried between the process and the
//! driver. What comes is our own program's, but it handles a workload's bytes: nonsense ends it.

use std::{io, time::Duration};

use futures::StreamExt as _;
use model::{
    gateway::{FromGateway, GatewaySpec, MAX_LINE_BYTES, ToGateway},
    secret,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};

use super::GatewayEnd;
use crate::patience::within;

/// Why there is no gateway (any more).
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// This backend has none to start.
    #[error("there is no gateway program")]
    Absent,
    /// The sandbox was made without a way out, or the session names nobody to decide on it.
    #[error("the sandbox's shape and the session's gateway do not fit together")]
    Mismatch,
    /// It could not be started.
    #[error("{step}")]
    Start {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// It has not said that it is ready.
    #[error("the gateway was not ready within {0:?}")]
    Silent(Duration),
    /// It has ended.
    #[error("the gateway ended")]
    Ended,
    /// Reading or writing failed.
    #[error("the gateway's control socket")]
    Io(#[from] io::Error),
    /// It said something that an honest one does not say, or not now.
    #[error("the gateway does not make sense")]
    Nonsense,
}

/// A gateway that is configured and serves.
pub struct GatewayLink<S> {
    lines: FramedRead<ReadHalf<S>, LinesCodec>,
    writer: WriteHalf<S>,
}

impl<S: AsyncRead + AsyncWrite> GatewayLink<S> {
    /// Says what the gateway is there for, and waits until it is ready.
    pub async fn open(socket: S, spec: &GatewaySpec, patience: Duration) -> Result<Self, GatewayError> {
        let (reader, writer) = tokio::io::split(socket);
        let codec = LinesCodec::new_with_max_length(MAX_LINE_BYTES);
        let mut link = Self { lines: FramedRead::new(reader, codec), writer };
        let greet = async {
            write(&mut link.writer, &ToGateway::Configure(Box::new(spec.clone()))).await?;
            match next(&mut link.lines).await? {
                Some(FromGateway::Ready) => Ok(()),
                Some(FromGateway::Event(_) | FromGateway::Usage { .. } | FromGateway::Done { .. }) => {
                    Err(GatewayError::Nonsense)
                }
                None => Err(GatewayError::Ended),
            }
        };
        within(patience, greet).await.ok_or(GatewayError::Silent(patience))??;
        Ok(link)
    }

    /// Carries until one side has gone: the gateway, or its driver. Closes the socket then, which ends the gateway.
    pub async fn carry(self, end: GatewayEnd) -> Result<(), GatewayError> {
        let Self { mut lines, mut writer } = self;
        let GatewayEnd { events, mut orders } = end;
        let hear = async {
            while let Some(said) = next(&mut lines).await? {
                match said {
                    FromGateway::Ready => return Err(GatewayError::Nonsense),
                    FromGateway::Event(_) | FromGateway::Usage { .. } | FromGateway::Done { .. } => {
                        if events.send(said).await.is_err() {
                            break;
                        }
                    }
                }
            }
            Ok(())
        };
        let tell = async {
            while let Some(order) = orders.recv().await {
                write(&mut writer, &order).await?;
            }
            // Nobody has anything to tell; what it says is still heard.
            std::future::pending().await
        };
        tokio::select! {
            done = hear => done,
            failed = tell => failed,
        }
    }
}

async fn next<R: AsyncRead>(
    lines: &mut FramedRead<ReadHalf<R>, LinesCodec>,
) -> Result<Option<FromGateway>, GatewayError> {
    match lines.next().await {
        None => Ok(None),
        Some(Ok(line)) => serde_json::from_str(&line).map(Some).map_err(|_| GatewayError::Nonsense),
        Some(Err(LinesCodecError::MaxLineLengthExceeded)) => Err(GatewayError::Nonsense),
        // Bytes that are no text are an error of this kind, too.
        Some(Err(LinesCodecError::Io(error))) => Err(error.into()),
    }
}

/// Writes a line, and wipes what it was made of: there may be secrets in it.
async fn write<S: AsyncWrite>(writer: &mut WriteHalf<S>, order: &ToGateway) -> Result<(), GatewayError> {
    use tokio::io::AsyncWriteExt as _;
    let mut line = line(order)?;
    let written = writer.write_all(&line).await;
    secret::wipe(&mut line);
    written?;
    Ok(writer.flush().await?)
}

/// Encoded into a buffer of the right size: one that grows leaves copies behind.
fn line(order: &ToGateway) -> io::Result<Vec<u8>> {
    let mut size = Count(1);
    serde_json::to_writer(&mut size, order)?;
    if size.0 > MAX_LINE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too much for a gateway"));
    }
    let mut line = Vec::with_capacity(size.0);
    serde_json::to_writer(&mut line, order)?;
    line.push(b'\n');
    Ok(line)
}

/// Counts what is written to it.
struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S> std::fmt::Debug for GatewayLink<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayLink").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use model::gateway::{BoundService, Credential, GatewayLimits};
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};
    use wire::{BindingId, BindingKind, BindingSpec, BindingUpstream};

    use super::*;
    use crate::Gateway;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn binding() -> BindingId {
        "bnd_00000000-0000-7000-8000-000000000001".parse().unwrap()
    }

    fn credential(value: &str) -> Credential {
        Credential { value: value.to_owned().into(), client_secret: None, session_token: None }
    }

    fn spec() -> GatewaySpec {
        let service = BoundService {
            id: binding(),
            spec: BindingSpec {
                name: "api".into(),
                kind: BindingKind::Bearer,
                upstream: BindingUpstream { url: "https://api.test".into(), ca_pem: None },
                allow: Vec::new(),
                budget: None,
            },
            credential: credential("hunter2"),
        };
        GatewaySpec {
            session: "ses_00000000-0000-7000-8000-000000000001".parse().unwrap(),
            policy: model::egress::Policy::default(),
            limits: GatewayLimits::default(),
            bindings: vec![service],
        }
    }

    fn said(said: &FromGateway) -> Vec<u8> {
        let mut line = serde_json::to_vec(said).unwrap();
        line.push(b'\n');
        line
    }

    /// The gateway's end of the socket, with what is written on it already.
    async fn gateway(says: &[u8]) -> (DuplexStream, BufReader<DuplexStream>) {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        theirs.write_all(says).await.unwrap();
        (ours, BufReader::new(theirs))
    }

    async fn order(theirs: &mut BufReader<DuplexStream>) -> ToGateway {
        let mut line = String::new();
        theirs.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }

    #[tokio::test]
    async fn a_gateway_is_configured_heard_and_told() {
        let (ours, mut theirs) = gateway(&said(&FromGateway::Ready)).await;
        let link = GatewayLink::open(ours, &spec(), PATIENCE).await.unwrap();
        let ToGateway::Configure(configured) = order(&mut theirs).await else { panic!("not configured") };
        assert_eq!(*configured, spec());
        let (mut gateway, end) = Gateway::pair();
        let carried = tokio::spawn(link.carry(end));
        theirs.write_all(&said(&FromGateway::Usage { egress_bytes: 7 })).await.unwrap();
        assert_eq!(gateway.next().await, Some(FromGateway::Usage { egress_bytes: 7 }));
        gateway.handle().rotate(binding(), credential("other")).await.unwrap();
        let ToGateway::Rotate { credential: told, .. } = order(&mut theirs).await else { panic!("not rotated") };
        assert_eq!(told, credential("other"));
        drop(theirs);
        carried.await.unwrap().unwrap();
        assert_eq!(gateway.next().await, None);
        assert!(gateway.handle().rotate(binding(), credential("x")).await.is_err());
    }

    #[tokio::test]
    async fn what_makes_no_sense_ends_it() {
        let early = said(&FromGateway::Usage { egress_bytes: 7 });
        for (says, nonsense) in [(&early[..], true), (b"{}\n", true), (b"\xff\xff\n", false), (b"", false)] {
            let (ours, mut theirs) = gateway(says).await;
            theirs.shutdown().await.unwrap();
            let failed = GatewayLink::open(ours, &spec(), PATIENCE).await.unwrap_err();
            assert_eq!(matches!(failed, GatewayError::Nonsense), nonsense, "{failed:?}");
        }
        let (ours, mut theirs) = gateway(&said(&FromGateway::Ready)).await;
        let link = GatewayLink::open(ours, &spec(), PATIENCE).await.unwrap();
        theirs.write_all(&said(&FromGateway::Ready)).await.unwrap();
        let (_gateway, end) = Gateway::pair();
        assert!(matches!(link.carry(end).await, Err(GatewayError::Nonsense)));
    }

    #[tokio::test]
    async fn a_driver_that_goes_away_closes_the_socket() {
        let (ours, mut theirs) = gateway(&said(&FromGateway::Ready)).await;
        let link = GatewayLink::open(ours, &spec(), PATIENCE).await.unwrap();
        let (gateway, end) = Gateway::pair();
        drop(gateway);
        theirs.write_all(&said(&FromGateway::Usage { egress_bytes: 7 })).await.unwrap();
        link.carry(end).await.unwrap();
        order(&mut theirs).await;
        assert_eq!(theirs.read_line(&mut String::new()).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_is_never_ready_is_given_up() {
        let (ours, _theirs) = gateway(b"").await;
        assert!(matches!(GatewayLink::open(ours, &spec(), PATIENCE).await, Err(GatewayError::Silent(_))));
    }
}
