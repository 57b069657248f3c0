//! What the host sends, frame by frame. Calls on files and terminals are served on the way.

use protocol::{Decoder, HostFrame};
use tokio::io::{AsyncReadExt, DuplexStream};

use super::{Outbox, Stop, fault};
use crate::simulator::{clerk::Clerk, terminals::Terminals};

/// Bytes taken from the pipe at once.
const READ_BYTES: usize = 16 * 1024;

/// The host's side of the pipe.
#[derive(Debug)]
pub(super) struct HostFrames<'a> {
    pipe: &'a mut DuplexStream,
    decoder: Decoder,
    buffer: Vec<u8>,
    /// What serves files, from the start on.
    clerk: Option<Clerk<'a>>,
    /// What has terminals, from then on.
    terminals: Option<Terminals>,
}

/// What the host says while something runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// This turn is to be interrupted.
    Interrupted,
    /// All is to end.
    Stop,
    /// What may not come now.
    Unexpected,
}

impl<'a> HostFrames<'a> {
    pub(super) fn new(pipe: &'a mut DuplexStream) -> Self {
        Self { pipe, decoder: Decoder::new(), buffer: vec![0; READ_BYTES], clerk: None, terminals: None }
    }

    /// Serves files and terminals from here on.
    pub(super) fn serve(&mut self, clerk: Clerk<'a>, terminals: Terminals) {
        self.clerk = Some(clerk);
        self.terminals = Some(terminals);
    }

    /// The next frame. A dropped call loses nothing.
    pub(super) async fn next(&mut self, outbox: &mut Outbox) -> Result<HostFrame, Stop> {
        match self.frame().await? {
            Ok(frame) => Ok(frame),
            Err(error) => match fault(outbox, format!("from the host: {error}")).await? {},
        }
    }

    /// Resolves once this turn is to be interrupted, or something else comes.
    pub(super) async fn heard(&mut self, number: u32) -> Result<Heard, Stop> {
        loop {
            match self.frame().await? {
                Ok(HostFrame::Interrupt { turn }) if turn == number => return Ok(Heard::Interrupted),
                Ok(HostFrame::Interrupt { .. }) => {}
                Ok(HostFrame::Stop) => return Ok(Heard::Stop),
                Ok(
                    HostFrame::Turn(_)
                    | HostFrame::Start(_)
                    | HostFrame::Put(_)
                    | HostFrame::File(_)
                    | HostFrame::Terminal(_),
                )
                | Err(_) => return Ok(Heard::Unexpected),
            }
        }
    }

    /// The next frame that is no call on files or terminals, where those are served.
    async fn frame(&mut self) -> Result<Result<HostFrame, protocol::DecodeError>, Stop> {
        loop {
            match (self.decoder.next_frame::<HostFrame>(), &self.clerk, &mut self.terminals) {
                (Ok(Some(HostFrame::File(call))), Some(clerk), _) => clerk.answer(call).await?,
                (Ok(Some(HostFrame::Terminal(call))), _, Some(terminals)) => terminals.take(call),
                (Ok(Some(frame)), _, _) => return Ok(Ok(frame)),
                (Ok(None), _, _) => self.read().await?,
                (Err(error), _, _) => return Ok(Err(error)),
            }
        }
    }

    async fn read(&mut self) -> Result<(), Stop> {
        match self.pipe.read(&mut self.buffer).await {
            Ok(count @ 1..) => {
                self.decoder.push(&self.buffer[..count]);
                Ok(())
            }
            Ok(0) | Err(_) => Err(Stop::Gone),
        }
    }
}
