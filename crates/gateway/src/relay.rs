//! Bytes from one connection to another and back, counted and bounded.

mod bulk;
mod side;

use std::{io, time::Duration};

use model::egress::{Reason, Refused};
use tokio::{net::TcpStream, task::yield_now};

use crate::{
    activity::Activity,
    first::{Client, First, Look},
    session::Session,
};
use bulk::Bulk;
pub(crate) use bulk::{BULK_BYTES, BulkPlace, BulkPlaces};
use side::Side;
pub(crate) use side::widen;

/// Room for one read. A buffer is there only while bytes are: an idle connection costs none.
const BUFFER_BYTES: usize = 64 * 1024;
/// What one direction may move before the others have their turn, when neither of its ends makes it wait.
const TURN_BYTES: usize = 1024 * 1024;

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
pub(crate) async fn relay(session: &Session, client: Client, upstream: TcpStream, screen: Screen, attempted: &str) {
    let Client { io: client, seen } = client;
    let relay = Relay { session, activity: Activity::new() };
    let up = async {
        if !seen.is_empty() {
            relay.spend(seen.len())?;
            side::write_all(&upstream, &seen).await?;
            relay.activity.now();
        }
        drop(seen);
        relay.pump(&client, &upstream, screen).await
    };
    let idle = Duration::from_millis(session.outside.limits.idle_ms);
    let both = async { tokio::try_join!(up, relay.pump(&upstream, &client, Screen::Open)) };
    let cut = tokio::select! {
        done = both => done.err(),
        () = relay.activity.idle_for(idle) => Some(Cut::Idle),
    };
    match cut {
        None | Some(Cut::Broken) => {}
        Some(Cut::Idle) => tracing::debug!(attempted, "cut an idle connection"),
        Some(Cut::Refused(refused)) => session.teller.denied(attempted, &refused).await,
    }
}

/// What both directions share.
struct Relay<'a> {
    session: &'a Session,
    activity: Activity,
}

impl Relay<'_> {
    /// One direction. Its end is passed on.
    async fn pump(&self, from: &impl Side, to: &impl Side, mut screen: Screen) -> Result<(), Cut> {
        let mut moved = 0;
        let mut bulk = None;
        loop {
            from.readable().await?;
            if moved >= BULK_BYTES && bulk.is_none() {
                bulk = Some(Bulk::take(&self.session.bulk).inspect(|_| to.widen()));
            }
            let ended = match &bulk {
                Some(Some(bulk)) => self.splice(bulk, from, to).await?,
                Some(None) | None => self.copy(from, to, &mut screen, &mut moved).await?,
            };
            if ended {
                to.end()?;
                self.activity.now();
                return Ok(());
            }
        }
    }

    /// Copies what is there, until nothing is or it is the others' turn. Whether it was the end.
    async fn copy(&self, from: &impl Side, to: &impl Side, screen: &mut Screen, moved: &mut u64) -> Result<bool, Cut> {
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        let mut turn = 0;
        while turn < TURN_BYTES {
            buffer.clear();
            match from.try_read_buf(&mut buffer) {
                Ok(0) => return Ok(true),
                Ok(read) => {
                    if *screen == Screen::ServerFirst {
                        harmless(&buffer)?;
                        *screen = Screen::Open;
                    }
                    self.spend(read)?;
                    side::write_all(to, &buffer).await?;
                    self.activity.now();
                    turn += read;
                    *moved += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        yield_now().await;
        Ok(false)
    }

    /// The same without copying.
    async fn splice(&self, bulk: &Bulk, from: &impl Side, to: &impl Side) -> Result<bool, Cut> {
        let mut turn = 0;
        while turn < TURN_BYTES {
            match from.try_io(tokio::io::Interest::READABLE, || bulk.fill(from)) {
                Ok(0) => return Ok(true),
                Ok(read) => {
                    self.spend(read)?;
                    let mut left = read;
                    while left > 0 {
                        match to.try_io(tokio::io::Interest::WRITABLE, || bulk.empty(to, left)) {
                            Ok(written) => left -= written,
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
                            Err(error) => return Err(error.into()),
                        }
                    }
                    self.activity.now();
                    turn += read;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        yield_now().await;
        Ok(false)
    }

    fn spend(&self, bytes: usize) -> Result<(), Cut> {
        self.session.spend(bytes).map_err(Cut::Refused)
    }
}

/// Refuses what would have been decided by its name, had it come before the server spoke.
fn harmless(first: &[u8]) -> Result<(), Cut> {
    match Look::default().at(first) {
        Some(First::Other) => Ok(()),
        Some(First::Tls(_) | First::Http | First::Silent | First::Ended) | None => {
            let detail = "the server spoke first, and then the client began with TLS or HTTP";
            Err(Cut::Refused(Refused::flat(Reason::NotRecognised, detail)))
        }
    }
}
