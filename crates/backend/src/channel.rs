//! The pipe to a runner: frames over any duplex of bytes, decoded and checked for order.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use protocol::{DecodeError, Decoder, EncodeError, GuestFrame, GuestOrder, HostFrame, OrderError, Turn, encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::patience::within;

/// Bytes taken from the pipe at once.
const READ_BYTES: usize = 64 * 1024;

/// Why the pipe is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// Reading or writing failed.
    #[error("runner pipe")]
    Io(#[from] io::Error),
    /// Bytes that are not frames.
    #[error("bytes from the runner")]
    Decode(#[from] DecodeError),
    /// Frames that an honest runner would not send now.
    #[error("frame from the runner")]
    Order(#[from] OrderError),
    /// A frame of ours that cannot be sent.
    #[error("frame to the runner")]
    Encode(#[from] EncodeError),
    /// The pipe closed before hello.
    #[error("runner went away before it said hello")]
    Closed,
    /// No hello in time.
    #[error("runner was silent for {0:?}")]
    Silent(Duration),
}

/// The host's end of the pipe.
pub struct Channel {
    receiver: Receiver,
    sender: Sender,
}

/// The receiving half: frames of the runner, checked.
pub struct Receiver {
    pipe: Box<dyn AsyncRead + Send + Unpin>,
    decoder: Decoder,
    order: GuestOrder,
    buffer: Vec<u8>,
    /// The number of the last turn that was sent.
    turn: Arc<AtomicU32>,
}

/// The sending half.
pub struct Sender {
    pipe: Box<dyn AsyncWrite + Send + Unpin>,
    /// The number of the last turn that was sent.
    turn: Arc<AtomicU32>,
    /// Of frames that were sent, what is not written yet.
    unsent: Bytes,
}

impl Channel {
    /// Takes a pipe over which nothing has come yet, and waits for the runner's hello for at most `patience`.
    pub async fn handshake(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
        patience: Duration,
    ) -> Result<Self, ChannelError> {
        let turn = Arc::new(AtomicU32::new(0));
        let mut receiver = Receiver {
            pipe: Box::new(reader),
            decoder: Decoder::new(),
            order: GuestOrder::new(),
            buffer: vec![0; READ_BYTES],
            turn: Arc::clone(&turn),
        };
        let hello = within(patience, receiver.next()).await;
        match hello.ok_or(ChannelError::Silent(patience))?? {
            Some(_) => Ok(Self { receiver, sender: Sender { pipe: Box::new(writer), turn, unsent: Bytes::new() } }),
            None => Err(ChannelError::Closed),
        }
    }

    /// Says which session this pipe now belongs to, and gives its halves.
    pub fn assign(mut self, session_id: &str) -> (Sender, Receiver) {
        self.receiver.order.assign(session_id);
        (self.sender, self.receiver)
    }
}

impl Receiver {
    /// The next frame; none when the pipe is closed. Cancel-safe: a dropped call loses nothing.
    pub async fn next(&mut self) -> Result<Option<GuestFrame>, ChannelError> {
        loop {
            if let Some(frame) = self.decoder.next_frame::<GuestFrame>()? {
                self.order.turn(self.turn.load(Ordering::Acquire));
                self.order.check(&frame)?;
                return Ok(Some(frame));
            }
            let read = self.pipe.read(&mut self.buffer).await?;
            if read == 0 {
                return Ok(None);
            }
            self.decoder.push(&self.buffer[..read]);
        }
    }
}

impl Sender {
    /// Writes one frame. A dropped call may have written a part of it; the next one goes on from there.
    pub async fn send(&mut self, frame: &HostFrame) -> Result<(), ChannelError> {
        let bytes = encode(frame)?;
        if let HostFrame::Turn(Turn { number, .. }) = frame {
            // Before a byte of it is out: its end may be here before the writing returns.
            self.turn.store(*number, Ordering::Release);
        }
        self.unsent = if self.unsent.is_empty() { bytes.into() } else { [&self.unsent[..], &bytes].concat().into() };
        while !self.unsent.is_empty() {
            if self.pipe.write_buf(&mut self.unsent).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
        }
        // A large frame's memory goes with it.
        self.unsent = Bytes::new();
        self.pipe.flush().await?;
        Ok(())
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("order", &self.receiver.order).finish_non_exhaustive()
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("order", &self.order).finish_non_exhaustive()
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use protocol::VERSION;

    use super::*;

    async fn shake(bytes: Vec<u8>) -> Result<Channel, ChannelError> {
        let (host, mut guest) = tokio::io::duplex(1024);
        let (reader, writer) = tokio::io::split(host);
        guest.write_all(&bytes).await.unwrap();
        drop(guest);
        Channel::handshake(reader, writer, Duration::from_secs(1)).await
    }

    #[tokio::test]
    async fn a_hello_of_this_version_opens_the_channel() {
        shake(encode(&GuestFrame::Hello { version: VERSION }).unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn anything_but_hello_is_refused() {
        let early = encode(&GuestFrame::Result { json: b"{}".to_vec() }).unwrap();
        assert!(matches!(shake(early).await, Err(ChannelError::Order(_))));
        assert!(matches!(shake(vec![0xff; 64]).await, Err(ChannelError::Decode(_))));
        assert!(matches!(shake(Vec::new()).await, Err(ChannelError::Closed)));
        let other = encode(&GuestFrame::Hello { version: VERSION + 1 }).unwrap();
        assert!(matches!(shake(other).await, Err(ChannelError::Order(OrderError::Version(_)))));
    }

    #[tokio::test]
    async fn a_send_that_is_given_up_in_the_middle_is_finished_by_the_next() {
        let (host, mut guest) = tokio::io::duplex(16);
        let (reader, writer) = tokio::io::split(host);
        guest.write_all(&encode(&GuestFrame::Hello { version: VERSION }).unwrap()).await.unwrap();
        let channel = Channel::handshake(reader, writer, Duration::from_secs(1)).await.unwrap();
        let (mut sender, _receiver) = channel.assign("ses_1");
        let put = |data: Vec<u8>| {
            HostFrame::Put(protocol::Put { path: "a".into(), kind: protocol::PutKind::Link, data, last: true })
        };
        let long = put(vec![7; 1000]);
        let given_up = tokio::time::timeout(Duration::from_millis(10), sender.send(&long)).await;
        assert!(given_up.is_err(), "nobody reads");
        let sending = tokio::spawn(async move { sender.send(&HostFrame::Stop).await });
        let (mut decoder, mut seen, mut buffer) = (protocol::Decoder::new(), Vec::new(), [0; 64]);
        while seen.len() < 2 {
            let read = guest.read(&mut buffer).await.unwrap();
            decoder.push(&buffer[..read]);
            while let Some(frame) = decoder.next_frame::<HostFrame>().unwrap() {
                seen.push(frame);
            }
        }
        assert_eq!(seen, [long, HostFrame::Stop]);
        sending.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_runner_is_given_up() {
        let (host, _guest) = tokio::io::duplex(64);
        let (reader, writer) = tokio::io::split(host);
        let silent = Channel::handshake(reader, writer, Duration::from_secs(3)).await;
        assert!(matches!(silent, Err(ChannelError::Silent(_))));
    }
}
