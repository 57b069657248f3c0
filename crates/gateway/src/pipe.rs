//! The pipe: the control socket of the session's runner, on which it asks for streams and gets them.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream as StdStream,
    },
    sync::Arc,
    time::Duration,
};

use model::egress::{Reason, Refused};
use protocol::egress::{GRANTED, REFUSED, WANT};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::{io::Interest, net::UnixStream, sync::Semaphore, task::JoinSet, time::timeout};

use crate::{relay::widen, run::GatewayError, session::Session};

/// Wishes that are read at once. What waits behind them waits in the socket.
const WISHES: usize = 64;
/// How long streams may go on when the sandbox has gone: nobody is there to read, but what was sent is still delivered.
const DRAIN: Duration = Duration::from_secs(2);

/// What was asked for when there is no stream for it.
const STREAM: &str = "open a connection";

/// The pipe, ready to be served.
pub(crate) fn open(pipe: OwnedFd) -> io::Result<UnixStream> {
    let pipe = StdStream::from(pipe);
    pipe.set_nonblocking(true)?;
    UnixStream::from_std(pipe)
}

/// Serves until the runner has gone, and its streams with it.
pub(crate) async fn serve(pipe: &UnixStream, session: &Arc<Session>) -> Result<(), GatewayError> {
    let mut streams = JoinSet::new();
    let places =
        Arc::new(Semaphore::new(usize::try_from(session.outside.limits.connections).unwrap_or(usize::MAX >> 4)));
    let done = loop {
        let mut wishes = [0; WISHES];
        let read = tokio::select! {
            read = receive(pipe, &mut wishes) => read,
            Some(ended) = streams.join_next(), if !streams.is_empty() => {
                report(ended);
                continue;
            }
        };
        match read {
            Ok(0) => break Ok(()),
            Ok(read) => {
                if let Err(error) = grant(pipe, &wishes[..read], session, &places, &mut streams).await {
                    break Err(error);
                }
            }
            Err(error) => break Err(error),
        }
    };
    let _ = timeout(DRAIN, async {
        while let Some(ended) = streams.join_next().await {
            report(ended);
        }
    })
    .await;
    streams.abort_all();
    let gone = |error: &io::Error| matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
    done.or_else(|error| if gone(&error) { Ok(()) } else { Err(GatewayError::Pipe(error)) })
}

async fn receive(pipe: &UnixStream, into: &mut [u8]) -> io::Result<usize> {
    pipe.async_io(Interest::READABLE, || pipe.try_read(into)).await
}

async fn grant(
    pipe: &UnixStream,
    wishes: &[u8],
    session: &Arc<Session>,
    places: &Arc<Semaphore>,
    streams: &mut JoinSet<()>,
) -> io::Result<()> {
    for wish in wishes {
        if *wish != WANT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a wish"));
        }
        // Ended streams are taken away here, too: a runner that never stops wishing must not pile them up.
        while let Some(ended) = streams.try_join_next() {
            report(ended);
        }
        let place = match session.exhausted() {
            Some(refused) => Err(refused),
            None => places.clone().try_acquire_owned().map_err(|_| {
                let most = session.outside.limits.connections;
                Refused::flat(Reason::Quota, format!("the session has {most} connections open, and may have no more"))
            }),
        };
        let place = match place {
            Ok(place) => place,
            Err(refused) => {
                session.teller.denied(STREAM, &refused).await;
                send(pipe, REFUSED, None).await?;
                continue;
            }
        };
        let Ok((ours, theirs)) = UnixStream::pair() else {
            // Out of descriptors. It passes when streams end.
            send(pipe, REFUSED, None).await?;
            continue;
        };
        // What stands in it is counted as the sandbox's memory.
        widen(&theirs);
        // Theirs is non-blocking as well; the runner sets what it wants.
        let theirs = theirs.into_std()?;
        theirs.set_nonblocking(false)?;
        match send(pipe, GRANTED, Some(&theirs.into())).await {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::TOOMANYREFS.raw_os_error()) => {
                send(pipe, REFUSED, None).await?;
                continue;
            }
            Err(error) => return Err(error),
        }
        let session = session.clone();
        streams.spawn(async move {
            session.stream(ours).await;
            drop(place);
        });
    }
    Ok(())
}

async fn send(pipe: &UnixStream, word: u8, descriptor: Option<&OwnedFd>) -> io::Result<()> {
    pipe.async_io(Interest::WRITABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = descriptor.map(|descriptor| [descriptor.as_fd()]);
        if let Some(descriptors) = &descriptors {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        sendmsg(pipe, &[IoSlice::new(&[word])], &mut ancillary, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        Ok(())
    })
    .await
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a stream ended in a panic");
    }
}
