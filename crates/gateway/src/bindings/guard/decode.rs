//! Decodes a body beside its way, only to look at it: memory stays bounded by what the coding itself needs.

mod brotli;

use std::{
    fmt,
    io::{self, Write},
    sync::Arc,
};

use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use super::{Cut, Eyes, Forms};
use brotli::Brotli;

/// How many times its size a body may decode to: a little more than deflate can (1032).
const MAX_RATIO: u64 = 1100;

/// What may be decoded to whatever the ratio is: brotli makes very little of repetitions, and rightly so.
const FREE_BYTES: u64 = 64 * 1024 * 1024;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// `gzip`.
    Gzip,
    /// `deflate`: zlib, as the standard says, or bare, as some servers do.
    Deflate,
    /// `br`.
    Brotli,
}

impl Coding {
    /// The coding of that name.
    pub fn named(name: &str) -> Option<Self> {
        let is = |own: &str| name.eq_ignore_ascii_case(own);
        if is("gzip") || is("x-gzip") {
            Some(Self::Gzip)
        } else if is("deflate") {
            Some(Self::Deflate)
        } else if is("br") {
            Some(Self::Brotli)
        } else {
            None
        }
    }
}

pub(super) struct Decoder {
    inner: Inner,
    /// Encoded bytes so far.
    taken: u64,
}

enum Inner {
    Gzip(MultiGzDecoder<Sink>),
    Zlib(ZlibDecoder<Sink>),
    Bare(DeflateDecoder<Sink>),
    /// Nothing came yet that says which of the two it is.
    Deflate {
        sink: Option<Sink>,
        first: Option<u8>,
    },
    Brotli(Box<Brotli<Sink>>),
}

/// Where decoded bytes go: they are looked at and forgotten.
struct Sink {
    eyes: Eyes,
    decoded: u64,
    most: u64,
    cut: Option<Cut>,
}

impl Decoder {
    pub(super) fn new(coding: Coding, eyes: Eyes) -> Result<Self, Cut> {
        let sink = Sink { eyes, decoded: 0, most: FREE_BYTES, cut: None };
        let inner = match coding {
            Coding::Gzip => Inner::Gzip(MultiGzDecoder::new(sink)),
            Coding::Deflate => Inner::Deflate { sink: Some(sink), first: None },
            Coding::Brotli => Inner::Brotli(Box::new(Brotli::new(sink).ok_or(Cut::Bomb)?)),
        };
        Ok(Self { inner, taken: 0 })
    }

    pub(super) fn also(&mut self, forms: &Arc<Forms>) {
        if let Some(sink) = self.inner.sink_mut() {
            let at = sink.decoded;
            sink.eyes.also(forms, at);
        }
    }

    /// Decodes a piece, and says how much was decoded from the beginning.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<u64, Cut> {
        self.taken += piece.len() as u64;
        let most = self.taken.saturating_mul(MAX_RATIO).max(FREE_BYTES);
        if let Some(sink) = self.inner.sink_mut() {
            sink.most = most;
        }
        let done = self.inner.write(piece);
        self.judge(done)?;
        Ok(self.inner.sink().map_or(0, |sink| sink.decoded))
    }

    pub(super) fn end(&mut self) -> Result<(), Cut> {
        // What has no body, such as an answer to HEAD, is not encoded either.
        if self.taken > 0 {
            let done = self.inner.finish();
            self.judge(done)?;
        }
        self.inner.sink_mut().map_or(Ok(()), |sink| sink.eyes.finish())
    }

    pub(super) fn cleared(&self) -> u64 {
        self.inner.sink().map_or(0, |sink| sink.eyes.cleared())
    }

    fn judge(&self, done: io::Result<()>) -> Result<(), Cut> {
        match (self.inner.sink().and_then(|sink| sink.cut), done) {
            (Some(cut), _) => Err(cut),
            (None, Err(_)) => Err(Cut::Undecodable),
            (None, Ok(())) => Ok(()),
        }
    }
}

impl Inner {
    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Self::Zlib(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Self::Bare(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Self::Brotli(decoder) => decoder.push(piece),
            Self::Deflate { sink, first } => {
                let (head, rest) = match (*first, piece) {
                    (None, [one]) => {
                        *first = Some(*one);
                        return Ok(());
                    }
                    (_, []) => return Ok(()),
                    (None, [one, two, ..]) => ([*one, *two], &piece[2..]),
                    (Some(one), [two, ..]) => ([one, *two], &piece[1..]),
                };
                let sink = sink.take().expect("it is taken once, and this is that moment");
                let is_zlib = head[0] & 0x0f == 8 && u16::from_be_bytes(head).is_multiple_of(31);
                *self =
                    if is_zlib { Self::Zlib(ZlibDecoder::new(sink)) } else { Self::Bare(DeflateDecoder::new(sink)) };
                self.write(&head).and_then(|()| self.write(rest))
            }
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Zlib(decoder) => decoder.try_finish(),
            Self::Bare(decoder) => decoder.try_finish(),
            Self::Brotli(decoder) => decoder.end(),
            Self::Deflate { .. } => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn sink(&self) -> Option<&Sink> {
        match self {
            Self::Gzip(decoder) => Some(decoder.get_ref()),
            Self::Zlib(decoder) => Some(decoder.get_ref()),
            Self::Bare(decoder) => Some(decoder.get_ref()),
            Self::Brotli(decoder) => Some(&decoder.out),
            Self::Deflate { sink, .. } => sink.as_ref(),
        }
    }

    fn sink_mut(&mut self) -> Option<&mut Sink> {
        match self {
            Self::Gzip(decoder) => Some(decoder.get_mut()),
            Self::Zlib(decoder) => Some(decoder.get_mut()),
            Self::Bare(decoder) => Some(decoder.get_mut()),
            Self::Brotli(decoder) => Some(&mut decoder.out),
            Self::Deflate { sink, .. } => sink.as_mut(),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(cut) = self.cut {
            return Err(io::Error::other(cut));
        }
        self.decoded += bytes.len() as u64;
        let looked = if self.decoded > self.most { Err(Cut::Bomb) } else { self.eyes.scan(bytes) };
        match looked {
            Ok(()) => Ok(bytes.len()),
            Err(cut) => {
                self.cut = Some(cut);
                Err(io::Error::other(cut))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("taken", &self.taken).finish_non_exhaustive()
    }
}
