//! Connections that are allowed by a name: whatever goes through has to be for that name.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use model::egress::{Host, Reason, Refused};
use tokio::{
    io::{AsyncWriteExt as _, Interest},
    net::TcpStream,
    time::timeout,
};

use crate::{
    first::{Client, First, SILENCE},
    http_proxy::{self, Mode},
    relay::{Screen, relay},
    session::{By, Session},
};

/// A fatal `access_denied`: TLS clients name it, where a closed connection would look like a fault of the network.
const ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 49];

/// A client, and what it may reach.
pub(crate) struct Tunnel {
    pub(crate) session: Arc<Session>,
    pub(crate) client: Client,
    /// The names that it may be for, all of them allowed on this port; at least one.
    pub(crate) names: Vec<String>,
    pub(crate) port: u16,
    pub(crate) way: Way,
    /// For refusals.
    pub(crate) attempted: String,
}

/// Where a tunnel leads.
pub(crate) enum Way {
    /// To the one name that was asked for. The connection is there, and was told.
    Asked(Option<TcpStream>),
    /// To the address that was caught, which the names were resolved to; it is connected to once it is known for which.
    Caught(IpAddr),
}

/// Who ended the silence.
enum Speaker {
    Client,
    Server,
}

impl Tunnel {
    /// Serves the connection to its end.
    pub(crate) async fn run(mut self) {
        let Ok(mut first) = self.client.first(SILENCE).await else { return };
        if first == First::Silent {
            let latest = self.names[0].clone();
            let Some(upstream) = self.connect(latest, By::Tcp).await else { return };
            let idle = Duration::from_millis(self.session.outside.limits.idle_ms);
            match timeout(idle, who_speaks(&self.client, &upstream)).await {
                Ok(Ok(Speaker::Server)) => {
                    return relay(&self.session, self.client, upstream, Screen::ServerFirst, &self.attempted).await;
                }
                Ok(Ok(Speaker::Client)) => {}
                Ok(Err(_)) | Err(_) => return,
            }
            // A slow client, not a patient one: it is decided by what it says, like any other.
            if let Way::Asked(place) = &mut self.way {
                *place = Some(upstream);
            }
            first = match self.client.first(idle).await {
                Ok(said) => said,
                Err(_) => return,
            };
        }
        match first {
            First::Tls(Some(name)) if self.names.contains(&name) => {
                let Some(upstream) = self.connect(name, By::Tls).await else { return };
                relay(&self.session, self.client, upstream, Screen::Open, &self.attempted).await;
            }
            First::Tls(named) => {
                self.refuse(&other(named.as_deref(), &self.names)).await;
                let _ = self.client.io.write_all(&ALERT).await;
            }
            First::Http => {
                let mode = match self.way {
                    Way::Asked(_) => Mode::Within { name: self.names.swap_remove(0), port: self.port },
                    Way::Caught(address) => Mode::Caught(SocketAddr::new(address, self.port)),
                };
                // What serves HTTP can open a tunnel, which can carry HTTP; in that there are no tunnels.
                Box::pin(http_proxy::serve(&self.session, self.client, mode)).await;
            }
            First::Other => {
                let detail = format!("what follows is neither TLS nor HTTP for {}", self.names.join(" or "));
                self.refuse(&Refused::flat(Reason::NotRecognised, detail)).await;
            }
            First::Silent | First::Ended => {}
        }
    }

    async fn refuse(&self, refused: &Refused) {
        self.session.teller.denied(&self.attempted, refused).await;
    }

    /// The connection that is there, or a new one.
    async fn connect(&mut self, name: String, by: By) -> Option<TcpStream> {
        match &mut self.way {
            Way::Asked(upstream) => upstream.take(),
            Way::Caught(address) => {
                let host = Host::Name(name);
                self.session.reach_at(&host, self.port, *address, by, &self.attempted).await.ok()
            }
        }
    }
}

/// Serves a client that has asked for this host, and for which a connection was made and told.
pub(crate) async fn carry(
    session: &Arc<Session>,
    client: Client,
    upstream: TcpStream,
    host: Host,
    port: u16,
    attempted: String,
) {
    match host {
        Host::Address(_) => relay(session, client, upstream, Screen::Open, &attempted).await,
        Host::Name(name) => {
            let way = Way::Asked(Some(upstream));
            Tunnel { session: session.clone(), client, names: vec![name], port, way, attempted }.run().await;
        }
    }
}

/// Why a ClientHello that names this is refused.
fn other(said: Option<&str>, allowed: &[String]) -> Refused {
    let asked = allowed.join(" or ");
    match said {
        None => Refused::flat(Reason::NoServerName, format!("TLS names no server; {asked} was asked for")),
        Some(said) => Refused::flat(Reason::OtherName, format!("TLS asks for {said}, not for {asked}")),
    }
}

async fn who_speaks(client: &Client, upstream: &TcpStream) -> io::Result<Speaker> {
    tokio::select! {
        ready = client.io.ready(Interest::READABLE) => ready.map(|_| Speaker::Client),
        ready = upstream.ready(Interest::READABLE) => ready.map(|_| Speaker::Server),
    }
}
