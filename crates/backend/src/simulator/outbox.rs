//! What the model runner says: frames, with output counted and cut as the real runner does it.

use std::sync::Arc;

use protocol::{GuestFrame, GuestLimit, OUTPUT_CHUNK_BYTES, Stream, encode};
use tokio::io::{AsyncWriteExt, DuplexStream};

use super::{clerk::Pipe, runner::Stop};

/// Bytes that are collected before they are written.
const ENOUGH: usize = 64 * 1024;
/// What the pipe between a program and its runner holds: a program that writes more than that to a runner that no
/// longer reads is stuck.
const PIPE_BYTES: u64 = 64 * 1024;

/// Frames on their way to the host. They leave when something takes time or when there are many, so that a short
/// program costs one write.
#[derive(Debug)]
pub(super) struct Outbox {
    pipe: Pipe,
    bytes: Vec<u8>,
    written: usize,
    /// Output that is not a frame yet.
    pending: Option<(Stream, Vec<u8>)>,
    /// Frames after which this runner goes away.
    frames_left: Option<u64>,
    output_left: u64,
    exceeded: bool,
    /// Output that nobody reads any more.
    unread: u64,
}

impl Outbox {
    pub(super) fn new(pipe: DuplexStream, frames_left: Option<u64>) -> Self {
        Self {
            pipe: Arc::new(tokio::sync::Mutex::new(pipe)),
            bytes: Vec::new(),
            written: 0,
            pending: None,
            frames_left,
            output_left: 0,
            exceeded: false,
            unread: 0,
        }
    }

    /// The pipe, for somebody else who writes whole frames to it.
    pub(super) fn pipe(&self) -> Pipe {
        Arc::clone(&self.pipe)
    }

    /// How much output may be forwarded.
    pub(super) fn allow(&mut self, output_bytes: u64) {
        self.output_left = output_bytes;
    }

    /// Says something.
    pub(super) async fn say(&mut self, frame: &GuestFrame) -> Result<(), Stop> {
        self.close_chunk().await?;
        self.append(frame).await
    }

    /// Says something that is not a frame.
    pub(super) async fn babble(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.close_chunk().await?;
        self.bytes.extend_from_slice(bytes);
        self.flush().await
    }

    /// Forwards what the program wrote.
    pub(super) async fn output(&mut self, stream: Stream, mut data: &[u8]) -> Result<(), Stop> {
        while !data.is_empty() && !self.exceeded {
            let most = usize::try_from(self.output_left).unwrap_or(usize::MAX).min(data.len());
            if most == 0 {
                self.exceeded = true;
                self.say(&GuestFrame::Exceeded { limit: GuestLimit::Output }).await?;
                break;
            }
            let chunk = self.chunk(stream).await?;
            let (now, later) = data.split_at(most.min(OUTPUT_CHUNK_BYTES - chunk.len()));
            chunk.extend_from_slice(now);
            self.output_left -= now.len() as u64;
            data = later;
        }
        self.unread += data.len() as u64;
        if self.unread > PIPE_BYTES { self.hang().await } else { Ok(()) }
    }

    /// Says nothing any more; only an end from outside, or the host's, ends this.
    pub(super) async fn hang(&mut self) -> Result<(), Stop> {
        self.flush().await?;
        std::future::pending().await
    }

    /// Writes everything. A dropped call loses nothing.
    pub(super) async fn flush(&mut self) -> Result<(), Stop> {
        self.close_chunk().await?;
        self.write().await
    }

    /// The chunk that output of this stream goes to; it has room.
    async fn chunk(&mut self, stream: Stream) -> Result<&mut Vec<u8>, Stop> {
        let fits = self.pending.as_ref().is_some_and(|(of, data)| *of == stream && data.len() < OUTPUT_CHUNK_BYTES);
        if !fits {
            self.close_chunk().await?;
        }
        Ok(&mut self.pending.get_or_insert_with(|| (stream, Vec::new())).1)
    }

    async fn close_chunk(&mut self) -> Result<(), Stop> {
        match self.pending.take() {
            Some((stream, data)) => self.append(&GuestFrame::Output { stream, data }).await,
            None => Ok(()),
        }
    }

    async fn append(&mut self, frame: &GuestFrame) -> Result<(), Stop> {
        if self.frames_left == Some(0) {
            return Err(Stop::Gone);
        }
        self.bytes.extend_from_slice(&encode(frame).expect("the model's frames are small"));
        if let Some(left) = &mut self.frames_left {
            *left -= 1;
            if *left == 0 {
                self.write().await?;
                return Err(Stop::Gone);
            }
        }
        if self.bytes.len() >= ENOUGH { self.write().await } else { Ok(()) }
    }

    async fn write(&mut self) -> Result<(), Stop> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let mut pipe = self.pipe.lock().await;
        while self.written < self.bytes.len() {
            self.written += pipe.write(&self.bytes[self.written..]).await.map_err(|_| Stop::Gone)?;
        }
        self.bytes.clear();
        self.written = 0;
        Ok(())
    }
}
