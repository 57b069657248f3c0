//! The process's life: protected, configured, serving, ending.

use std::{io, net::SocketAddr, os::fd::OwnedFd, sync::Arc, time::Duration};

use model::gateway::{FromGateway, ToGateway};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{bindings::Bindings, control, outside::Outside, own, pipe, protect, session::Session, tell::Teller};

/// What was decided and waits for the server. Behind it, whoever wants something decided waits.
const BACKLOG: usize = 64;
/// How often the server hears how many bytes have gone through, and repeats of denials are looked at.
const BEAT: Duration = Duration::from_secs(1);
/// How long the end waits for the server to take what is still to be told.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How a gateway is run, by its deployment rather than by its session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The user and group that it becomes when it was started by root.
    pub user: Option<u32>,
    /// The resolver that it asks, instead of the host's.
    pub resolver: Option<SocketAddr>,
}

/// Why a gateway ended before its session.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// It could not be protected from its surroundings.
    #[error("cannot {0}")]
    Protect(&'static str, #[source] io::Error),
    /// The host has no resolver, or another thing that has to be there.
    #[error("cannot start")]
    Start(#[source] io::Error),
    /// The control socket broke.
    #[error("control socket")]
    Control(#[source] io::Error),
    /// The server said something that is no message. What it said may hold secrets, and is not repeated.
    #[error("the server's message cannot be read")]
    Malformed,
    /// The server closed the control socket.
    #[error("the server has gone")]
    ServerGone,
    /// The pipe broke, or the runner said something on it that means nothing.
    #[error("pipe")]
    Pipe(#[source] io::Error),
}

/// Serves one session until its pipe has ended, as a process that was started for it. Changes the process: it can no
/// longer be looked into, has no other descriptors, and no rights.
pub fn run(control: OwnedFd, pipe: OwnedFd, options: &Options) -> Result<(), GatewayError> {
    protect::process(&control, &pipe, options.user)?;
    serve(control, pipe, options)
}

/// The same in a process that is left as it is; for tests.
#[doc(hidden)]
pub fn serve(control: OwnedFd, pipe: OwnedFd, options: &Options) -> Result<(), GatewayError> {
    // One thread: a session's gateway is to have one processor's share at most, and streams take turns.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(GatewayError::Start)?;
    let done = runtime.block_on(session(control, pipe, options));
    // A resolver's thread may still be waiting for the network.
    runtime.shutdown_background();
    done
}

async fn session(control: OwnedFd, pipe: OwnedFd, options: &Options) -> Result<(), GatewayError> {
    let (mut orders, telling) = control::open(control).map_err(GatewayError::Control)?;
    let pipe = pipe::open(pipe).map_err(GatewayError::Pipe)?;
    let spec = match orders.next().await? {
        Some(ToGateway::Configure(spec)) => *spec,
        Some(ToGateway::Rotate { .. }) => return Err(GatewayError::Malformed),
        None => return Err(GatewayError::ServerGone),
    };
    let (said, heard) = mpsc::channel(BACKLOG);
    let writer = telling.start(heard);
    let policy = spec.policy.with_own(own::addresses().map_err(GatewayError::Start)?);
    let outside = Outside::asking(options.resolver, policy, spec.limits).map_err(GatewayError::Start)?;
    let outside = Arc::new(outside);
    let teller = Teller::writing(said, writer.written());
    let bindings = Bindings::new(spec.bindings, outside.clone(), teller.clone());
    let session = Arc::new(Session::new(outside, teller.clone(), bindings));
    teller.say(FromGateway::Ready).await;

    let done = tokio::select! {
        done = pipe::serve(&pipe, &session) => done,
        done = obey(&mut orders, &session) => done,
        never = beat(&teller) => match never {},
    };
    if matches!(done, Err(GatewayError::ServerGone)) {
        return done;
    }
    let last = async {
        teller.last_words().await;
        let egress_bytes = teller.bytes();
        let ended = done.is_ok();
        teller.say(if ended { FromGateway::Done { egress_bytes } } else { FromGateway::Usage { egress_bytes } }).await;
        writer.finish().await;
    };
    let _ = timeout(LAST_WORDS, last).await;
    done
}

/// Changes of secrets, until the server goes.
async fn obey(orders: &mut control::Orders, session: &Session) -> Result<(), GatewayError> {
    loop {
        match orders.next().await? {
            Some(ToGateway::Rotate { binding, credential }) => session.bindings.rotate(binding, credential),
            // Once was enough: what is allowed does not change under a running session.
            Some(ToGateway::Configure(_)) => return Err(GatewayError::Malformed),
            None => return Err(GatewayError::ServerGone),
        }
    }
}

async fn beat(teller: &Teller) -> std::convert::Infallible {
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        teller.beat().await;
    }
}
