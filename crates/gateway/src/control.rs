//! The control socket: the server's messages in, what was decided out, a JSON object a line.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
};

use model::gateway::{FromGateway, MAX_LINE_BYTES, ToGateway};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use zeroize::Zeroize as _;

use crate::run::GatewayError;

/// Messages from the server.
pub(crate) struct Orders {
    from: OwnedReadHalf,
    /// Allocated once at its full size: growing would leave copies of secrets behind. What is unused costs no memory.
    line: Vec<u8>,
}

/// The other direction, not yet in use.
pub(crate) struct Telling(OwnedWriteHalf);

/// The task that writes.
pub(crate) struct Writer {
    finish: oneshot::Sender<()>,
    written: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

/// Both directions of the socket.
pub(crate) fn open(socket: OwnedFd) -> io::Result<(Orders, Telling)> {
    let socket = StdStream::from(socket);
    socket.set_nonblocking(true)?;
    let (from, to) = UnixStream::from_std(socket)?.into_split();
    Ok((Orders { from, line: Vec::with_capacity(MAX_LINE_BYTES) }, Telling(to)))
}

impl Orders {
    /// The next message; none when the server has gone. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<ToGateway>, GatewayError> {
        loop {
            if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                let order = serde_json::from_slice(&self.line[..end]).map_err(|_| GatewayError::Malformed);
                self.consume(end + 1);
                return order.map(Some);
            }
            let room = MAX_LINE_BYTES - self.line.len();
            if room == 0 {
                return Err(GatewayError::Malformed);
            }
            let read = (&mut self.from).take(room as u64).read_buf(&mut self.line).await;
            if read.map_err(GatewayError::Control)? == 0 {
                return Ok(None);
            }
        }
    }

    /// Forgets the first `length` bytes, and wipes them.
    fn consume(&mut self, length: usize) {
        let held = self.line.len();
        self.line.copy_within(length.., 0);
        self.line[held - length..].zeroize();
        self.line.truncate(held - length);
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        self.line.as_mut_slice().zeroize();
    }
}

impl Telling {
    /// Writes what is heard, in order, until it is told to finish.
    pub(crate) fn start(self, mut heard: mpsc::Receiver<FromGateway>) -> Writer {
        let Self(mut to) = self;
        let (finish, mut finished) = oneshot::channel();
        let (wrote, written) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut closed = false;
            loop {
                let said = tokio::select! {
                    biased;
                    said = heard.recv() => said,
                    _ = &mut finished, if !closed => {
                        closed = true;
                        // What was said before is still written.
                        heard.close();
                        continue;
                    }
                };
                let Some(said) = said else { return };
                let mut line = serde_json::to_vec(&said).expect("events are JSON");
                line.push(b'\n');
                if to.write_all(&line).await.is_err() {
                    // The reading half sees the end, too, and ends the process.
                    return;
                }
                wrote.send_modify(|written| *written += 1);
            }
        });
        Writer { finish, written, task }
    }
}

impl Writer {
    /// How many messages were written.
    pub(crate) fn written(&self) -> watch::Receiver<u64> {
        self.written.clone()
    }

    /// Returns when everything was written.
    pub(crate) async fn finish(self) {
        let _ = self.finish.send(());
        let _ = self.task.await;
    }
}
