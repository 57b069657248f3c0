//! Bytes from one connection to another and back, counted and bounded.

use std::{io, time::Duration};

use model::egress::{Reason, Refused};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, tcp, unix},
    time::{Instant, sleep_until},
};

use crate::{
    first::{Client, Look},
    session::Session,
};

/// Room for one read. A buffer is there only while bytes are: an idle connection costs none.
const BUFFER_BYTES: usize = 64 * 1024;

/// What the client may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Screen {
    /// Anything: it was decided.
    Open,
    /// Nothing that is decided by what it says, because the server has spoken already: no TLS and no HTTP.
    ServerFirst,
}

/// Why a relay was cut.
enum Cut {
    Broken,
    Idle,
    Refused(Refused),
}

impl From<io::Error> for Cut {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// Relays until both sides have ended, or one breaks, or the session may not go on.
pub(crate) async fn relay(session: &Session, client: Client, mut upstream: TcpStream, screen: Screen, attempted: &str) {
    let Client { mut io, seen } = client;
    let (from_client, to_client) = io.split();
    let (from_upstream, to_upstream) = upstream.split();
    let activity = Activity::new();
    let idle = Duration::from_millis(session.outside.limits.idle_ms);
    let up = async {
        let mut to_upstream = to_upstream;
        if !seen.is_empty() {
            session.spend(seen.len()).map_err(Cut::Refused)?;
            to_upstream.write_all(&seen).await?;
            activity.now();
        }
        drop(seen);
        pump(session, from_client, to_upstream, &activity, screen).await
    };
    let down = pump(session, from_upstream, to_client, &activity, Screen::Open);
    let both = async { tokio::try_join!(up, down) };
    let cut = tokio::select! {
        done = both => done.err(),
        () = activity.idle_for(idle) => Some(Cut::Idle),
    };
    match cut {
        None | Some(Cut::Broken) => {}
        Some(Cut::Idle) => tracing::debug!(attempted, "cut an idle connection"),
        Some(Cut::Refused(refused)) => session.teller.denied(attempted, &refused).await,
    }
}

/// One direction. Its end is passed on.
async fn pump(
    session: &Session,
    from: impl Source,
    mut to: impl AsyncWrite + Unpin,
    activity: &Activity,
    mut screen: Screen,
) -> Result<(), Cut> {
    loop {
        from.readable().await?;
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        loop {
            buffer.clear();
            match from.try_read_buf(&mut buffer) {
                Ok(0) => {
                    to.shutdown().await?;
                    activity.now();
                    return Ok(());
                }
                Ok(read) => {
                    if screen == Screen::ServerFirst {
                        harmless(&buffer)?;
                        screen = Screen::Open;
                    }
                    session.spend(read).map_err(Cut::Refused)?;
                    to.write_all(&buffer).await?;
                    activity.now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Refuses what would have been decided by its name, had it come before the server spoke.
fn harmless(first: &[u8]) -> Result<(), Cut> {
    match Look::default().at(first) {
        Some(crate::first::First::Other) => Ok(()),
        _ => {
            let detail = "the server spoke first, and then the client began with TLS or HTTP";
            Err(Cut::Refused(Refused::flat(Reason::NotRecognised, detail)))
        }
    }
}

/// When something last went through.
struct Activity(std::sync::Mutex<Instant>);

impl Activity {
    fn new() -> Self {
        Self(std::sync::Mutex::new(Instant::now()))
    }

    fn now(&self) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
    }

    /// Returns when nothing has gone through for so long.
    async fn idle_for(&self, idle: Duration) {
        loop {
            let due = *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) + idle;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// The reading half of a socket: readiness first, so that no buffer waits with it.
trait Source {
    async fn readable(&self) -> io::Result<()>;
    fn try_read_buf(&self, buffer: &mut Vec<u8>) -> io::Result<usize>;
}

impl Source for tcp::ReadHalf<'_> {
    async fn readable(&self) -> io::Result<()> {
        tcp::ReadHalf::readable(self).await
    }

    fn try_read_buf(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        tcp::ReadHalf::try_read_buf(self, buffer)
    }
}

impl Source for unix::ReadHalf<'_> {
    async fn readable(&self) -> io::Result<()> {
        unix::ReadHalf::readable(self).await
    }

    fn try_read_buf(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        unix::ReadHalf::try_read_buf(self, buffer)
    }
}
