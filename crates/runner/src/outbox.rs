//! Frames on their way to the host: a queue in front of descriptor 1, written without ever waiting.
//!
//! The queue is bounded by its users: who has output to add asks [`Outbox::has_room`] first, so that a slow host
//! slows the workload down instead of filling the memory of the sandbox.

use std::collections::VecDeque;

use protocol::GuestFrame;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::log;

/// Above this many queued bytes nothing more is read from the workload.
const HIGH_WATER: usize = 256 * 1024;

/// The queue. See the module.
#[derive(Debug)]
pub(crate) struct Outbox {
    frames: VecDeque<Vec<u8>>,
    /// Bytes of the first frame that are written already.
    written: usize,
    queued: usize,
    /// The host's end is closed. What comes now is dropped.
    broken: bool,
}

impl Outbox {
    /// An empty queue in front of descriptor 1, which becomes non-blocking.
    pub(crate) fn new() -> Self {
        let stdout = rustix::stdio::stdout();
        let nonblocking = rustix::fs::fcntl_getfl(stdout)
            .and_then(|flags| rustix::fs::fcntl_setfl(stdout, flags | rustix::fs::OFlags::NONBLOCK));
        Self { frames: VecDeque::new(), written: 0, queued: 0, broken: nonblocking.is_err() }
    }

    /// Queues a frame.
    pub(crate) fn push(&mut self, frame: &GuestFrame) {
        match protocol::encode(frame) {
            Ok(bytes) => {
                self.queued += bytes.len();
                self.frames.push_back(bytes);
            }
            // Every payload is cut or refused below the frame limit before it comes here.
            Err(error) => log::line(&format!("frame dropped: {error}")),
        }
    }

    /// Whether more output may be added.
    pub(crate) fn has_room(&self) -> bool {
        self.queued < HIGH_WATER
    }

    /// Whether everything was handed over.
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether the host has closed its end.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Writes what the pipe takes now.
    pub(crate) fn flush_some(&mut self) {
        while let Some(frame) = self.frames.front() {
            match rustix::io::write(rustix::stdio::stdout(), &frame[self.written..]) {
                Ok(count) => {
                    self.written += count;
                    self.queued -= count;
                    if self.written == frame.len() {
                        self.written = 0;
                        self.frames.pop_front();
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.broken = true;
                    self.frames.clear();
                }
            }
        }
    }

    /// Writes everything, for at most `patience`. For the end of a life that has nothing else to watch.
    pub(crate) fn flush_all(&mut self, patience: Timespec) {
        loop {
            self.flush_some();
            let stdout = rustix::stdio::stdout();
            if self.is_empty() || poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], Some(&patience)) != Ok(1) {
                return;
            }
        }
    }
}
