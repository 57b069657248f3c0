//! The reflection guard: no response may carry the secret that its request was given.
//!
//! Pure: it is given the bytes of a response and says which of them may leave. A byte leaves when it cannot be part of
//! any form of a secret, also not together with what may follow; encoded bodies are decoded beside, and their bytes leave
//! when all that they decode to was seen. Ordinary text is not held up: only what could be the beginning of a form is.

mod decode;
mod escape;
mod forms;
mod prove;
mod reading;
mod scanner;

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

pub use decode::Coding;
pub use forms::Forms;
pub use prove::prove;
pub use scanner::{Found, Scanner};

use decode::Decoder;

/// An encoded body is decoded in pieces of this size, so that one piece does not hold up much, nor decode to too much at a time.
const PIECE_BYTES: usize = 4 * 1024;

/// Encoded bytes that may be kept while what they decode to is undecided. Forms are at most some ten thousand bytes; only an
/// encoding that says nothing at great length needs more.
const MAX_HELD_BYTES: usize = 1024 * 1024;

/// Automata that look at one response: that of its own request, and those that came with later secrets. The first and
/// the newest stay; each knows the secrets of several changes before it.
const MAX_EYES: usize = 4;

/// Why a response must not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// It carries the secret.
    #[error("the response carries the secret")]
    Reflected,
    /// It is not encoded as it says.
    #[error("the response is not encoded as it says")]
    Undecodable,
    /// It decodes to far more than it is, or there are too many that have to be decoded.
    #[error("the response takes too much to decode")]
    Bomb,
}

impl From<Found> for Cut {
    fn from(Found: Found) -> Self {
        Self::Reflected
    }
}

/// Scanners over the same bytes.
#[derive(Debug)]
struct Eyes(Vec<Scanner>);

/// See the module.
#[derive(Debug)]
pub struct Guard {
    /// Over the bytes as they come.
    raw: Eyes,
    decoder: Option<Decoder>,
    /// Encoded pieces that are not released: where each ends, and where what it decodes to does.
    pieces: VecDeque<(u64, u64)>,
    /// Where the last one that was released ends.
    decoded: u64,
    held: VecDeque<Bytes>,
    /// Bytes that came, and that left.
    came: u64,
    left: u64,
    ended: bool,
}

impl Guard {
    /// For a body in this coding; as it is, if in none. Fails when too many are being decoded already.
    pub fn new(forms: &Arc<Forms>, coding: Option<Coding>) -> Result<Self, Cut> {
        let eyes = || Eyes(vec![Scanner::new(forms.clone(), 0)]);
        Ok(Self {
            raw: eyes(),
            decoder: coding.map(|coding| Decoder::new(coding, eyes())).transpose()?,
            pieces: VecDeque::new(),
            decoded: 0,
            held: VecDeque::new(),
            came: 0,
            left: 0,
            ended: false,
        })
    }

    /// Looks for these as well from now on.
    pub fn also(&mut self, forms: &Arc<Forms>) {
        self.raw.also(forms, self.came);
        if let Some(decoder) = &mut self.decoder {
            decoder.also(forms);
        }
    }

    /// The next bytes of the body.
    pub fn push(&mut self, chunk: Bytes) -> Result<(), Cut> {
        self.raw.scan(&chunk)?;
        match &mut self.decoder {
            None => self.came += chunk.len() as u64,
            Some(decoder) => {
                for piece in chunk.chunks(PIECE_BYTES) {
                    let so_far = decoder.push(piece)?;
                    self.came += piece.len() as u64;
                    self.pieces.push_back((self.came, so_far));
                }
            }
        }
        if !chunk.is_empty() {
            self.held.push_back(chunk);
        }
        if self.decoder.is_some() && self.came - self.releasable() > MAX_HELD_BYTES as u64 {
            return Err(Cut::Bomb);
        }
        Ok(())
    }

    /// The body has ended.
    pub fn end(&mut self) -> Result<(), Cut> {
        self.raw.finish()?;
        if let Some(decoder) = &mut self.decoder {
            decoder.end()?;
        }
        self.ended = true;
        Ok(())
    }

    /// The next bytes that may leave.
    pub fn pop(&mut self) -> Option<Bytes> {
        let most = self.releasable() - self.left;
        let chunk = self.held.front_mut()?;
        let free = chunk.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        if free == 0 {
            return None;
        }
        self.left += free as u64;
        if free == chunk.len() { self.held.pop_front() } else { Some(chunk.split_to(free)) }
    }

    fn releasable(&mut self) -> u64 {
        if self.ended {
            return self.came;
        }
        let raw = self.raw.cleared();
        let Some(decoder) = &self.decoder else { return raw };
        let clear = decoder.cleared();
        while let Some((end, _)) = self.pieces.pop_front_if(|(_, decodes_to)| *decodes_to <= clear) {
            self.decoded = end;
        }
        raw.min(self.decoded)
    }
}

impl Eyes {
    fn also(&mut self, forms: &Arc<Forms>, at: u64) {
        if self.0.len() == MAX_EYES {
            self.0.remove(1);
        }
        self.0.push(Scanner::new(forms.clone(), at));
    }

    fn scan(&mut self, bytes: &[u8]) -> Result<(), Cut> {
        self.0.iter_mut().try_for_each(|eye| eye.scan(bytes)).map_err(Cut::from)
    }

    fn finish(&mut self) -> Result<(), Cut> {
        self.0.iter_mut().try_for_each(Scanner::finish).map_err(Cut::from)
    }

    fn cleared(&self) -> u64 {
        self.0.iter().map(Scanner::cleared).min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
