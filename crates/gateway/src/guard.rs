//! What stands between a client's bytes and the HTTP server: it follows the framing of the requests on its own, and
//! lets through only what every server would frame in the same way. The server behind it is lenient where the standard
//! lets it be (both lengths, equal lengths twice, bare line feeds); a gateway must not be.
//!
//! A head that is refused is replaced by a request of the method [`REFUSED`], whose path says why, so that the server
//! answers it in its turn; after it comes nothing.

mod framing;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
    time::{Sleep, sleep},
};

use crate::{
    first::Client,
    relay::{BULK_BYTES, BulkPlace, BulkPlaces, widen},
};
use framing::Framing;

pub(crate) use framing::MAX_HEADERS;

/// The method of a request that stands for one that was refused. A client that sends it gets the same answer.
pub(crate) const REFUSED: &str = "REFUSED";

/// Room for one read.
const READ_BYTES: usize = 16 * 1024;

/// A client's connection, guarded.
pub(crate) struct Guard {
    io: UnixStream,
    /// What was read and not yet let through.
    raw: BytesMut,
    /// What was let through and not yet read by the server.
    released: BytesMut,
    framing: Framing,
    state: State,
    /// How long the client may take nothing of an answer.
    patience: Duration,
    /// Since it has taken nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// What it has taken since it last said something.
    taken: u64,
    places: BulkPlaces,
    /// Held when much goes to it.
    wide: Option<BulkPlace>,
}

/// What is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing: the client has ended.
    Ended,
    /// Nothing: a request was refused. That is not the client's end, which would end the answer, too.
    Refused,
}

impl Guard {
    pub(crate) fn new(client: Client, patience: Duration, places: BulkPlaces) -> Self {
        let Client { io, seen } = client;
        let (released, framing) = (BytesMut::new(), Framing::default());
        let state = State::Open;
        Self { io, raw: seen, released, framing, state, patience, stalled: None, taken: 0, places, wide: None }
    }

    /// The connection as it is, after the head of a CONNECT: `read` is what the server has read and not used.
    pub(crate) fn into_client(self, read: &[u8]) -> Client {
        let mut seen = BytesMut::from(read);
        seen.extend_from_slice(&self.released);
        seen.extend_from_slice(&self.raw);
        Client { io: self.io, seen }
    }

    /// The outcome of a write; an error when the client has taken nothing for too long. The server would wait for ever.
    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            self.stalled = None;
            self.taken += written.as_ref().map_or(0, |written| *written as u64);
            if self.taken >= BULK_BYTES && self.wide.is_none() {
                self.wide = self.places.take().inspect(|_| widen(&self.io));
            }
            return Poll::Ready(written);
        }
        let patience = self.patience;
        ready!(self.stalled.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Lets through what can be of what was read.
    fn release(&mut self) {
        match self.framing.advance(&self.raw) {
            Ok(0) => {}
            Ok(through) => {
                self.released.unsplit(self.raw.split_to(through));
            }
            Err(fault) => {
                tracing::debug!(fault, "refused a request");
                let fault = fault.replace(' ', "_");
                let head = format!("{REFUSED} /{fault} HTTP/1.1\r\nhost: refused.invalid\r\nconnection: close\r\n\r\n");
                self.released.extend_from_slice(head.as_bytes());
                self.raw.clear();
                self.state = State::Refused;
            }
        }
    }
}

impl AsyncRead for Guard {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.released.is_empty() && this.state != State::Refused {
                this.release();
            }
            if !this.released.is_empty() {
                let length = this.released.len().min(into.remaining());
                into.put_slice(&this.released[..length]);
                this.released.advance(length);
                this.taken = 0;
                return Poll::Ready(Ok(()));
            }
            match this.state {
                State::Open => {}
                State::Ended => return Poll::Ready(Ok(())),
                // The server closes the connection when it has answered.
                State::Refused => return Poll::Pending,
            }
            this.raw.reserve(READ_BYTES);
            let read = {
                let mut io = Pin::new(&mut this.io);
                let mut more = [0; READ_BYTES];
                let mut buffer = ReadBuf::new(&mut more);
                ready!(io.as_mut().poll_read(cx, &mut buffer))?;
                this.raw.extend_from_slice(buffer.filled());
                buffer.filled().len()
            };
            if read == 0 {
                this.state = State::Ended;
            }
        }
    }
}

impl AsyncWrite for Guard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Frames bytes as if they came from a client; how many went through.
pub(crate) fn frame(bytes: &[u8]) -> Result<usize, framing::Fault> {
    let mut framing = Framing::default();
    let mut through = 0;
    loop {
        match framing.advance(&bytes[through..])? {
            0 => return Ok(through),
            more => through += more,
        }
    }
}
