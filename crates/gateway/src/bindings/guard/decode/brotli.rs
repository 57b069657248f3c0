//! Brotli, into a writer: with windows of at most 16 MiB, as browsers have them, and not too many at once.

use std::{
    io::{self, Write},
    sync::atomic::{AtomicUsize, Ordering},
};

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

/// Decoders that may live at once in this process. Each may need its window, so these are half a GiB at worst.
const MAX_LIVING: usize = 32;

/// Decoded bytes at a time.
const BUFFER_BYTES: usize = 16 * 1024;

static LIVING: AtomicUsize = AtomicUsize::new(0);

pub(super) struct Brotli<W> {
    pub(super) out: W,
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    buffer: Box<[u8]>,
    is_whole: bool,
    _living: Living,
}

/// Counts this decoder as long as it lives.
struct Living;

impl<W: Write> Brotli<W> {
    /// None when there are too many.
    pub(super) fn new(out: W) -> Option<Self> {
        let more = |living: usize| (living < MAX_LIVING).then_some(living + 1);
        LIVING.try_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        let alloc = StandardAlloc::default;
        Some(Self {
            out,
            state: BrotliState::new_strict(alloc(), alloc(), alloc()),
            buffer: vec![0; BUFFER_BYTES].into(),
            is_whole: false,
            _living: Living,
        })
    }

    /// Decodes a piece, and writes all that it decodes to.
    pub(super) fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        let (mut left, mut at, mut total) = (piece.len(), 0, 0);
        loop {
            if self.is_whole {
                return if left == 0 { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) };
            }
            let (mut room, mut written) = (self.buffer.len(), 0);
            let (buffer, state) = (&mut self.buffer, &mut self.state);
            let result =
                BrotliDecompressStream(&mut left, &mut at, piece, &mut room, &mut written, buffer, &mut total, state);
            self.out.write_all(&self.buffer[..written])?;
            match result {
                BrotliResult::ResultSuccess => self.is_whole = true,
                BrotliResult::NeedsMoreInput if left == 0 => return Ok(()),
                BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
                BrotliResult::ResultFailure => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    /// Nothing comes any more.
    pub(super) fn end(&self) -> io::Result<()> {
        if self.is_whole { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        LIVING.fetch_sub(1, Ordering::Relaxed);
    }
}
