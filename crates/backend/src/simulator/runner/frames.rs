//! What the host sends, frame by frame.

use protocol::{Decoder, HostFrame};
use tokio::io::{AsyncReadExt, DuplexStream};

use super::{Outbox, Stop, fault};

/// The host's side of the pipe.
#[derive(Debug)]
pub(super) struct HostFrames<'a> {
    pipe: &'a mut DuplexStream,
    decoder: Decoder,
}

impl<'a> HostFrames<'a> {
    pub(super) fn new(pipe: &'a mut DuplexStream) -> Self {
        Self { pipe, decoder: Decoder::new() }
    }

    /// The next frame. A dropped call loses nothing.
    pub(super) async fn next(&mut self, outbox: &mut Outbox) -> Result<HostFrame, Stop> {
        loop {
            match self.decoder.next_frame::<HostFrame>() {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => self.read().await?,
                Err(error) => match fault(outbox, format!("from the host: {error}")).await? {},
            }
        }
    }

    /// Resolves once this turn is to be interrupted; with true if something came that may not come now.
    pub(super) async fn interrupted(&mut self, number: u32) -> Result<bool, Stop> {
        loop {
            match self.decoder.next_frame::<HostFrame>() {
                Ok(Some(HostFrame::Interrupt { turn })) if turn == number => return Ok(false),
                Ok(Some(HostFrame::Interrupt { .. })) => {}
                Ok(Some(HostFrame::Turn(_) | HostFrame::Start(_) | HostFrame::Put(_))) | Err(_) => return Ok(true),
                Ok(None) => self.read().await?,
            }
        }
    }

    async fn read(&mut self) -> Result<(), Stop> {
        let mut buffer = [0; 2048];
        match self.pipe.read(&mut buffer).await {
            Ok(count @ 1..) => {
                self.decoder.push(&buffer[..count]);
                Ok(())
            }
            Ok(0) | Err(_) => Err(Stop::Gone),
        }
    }
}
