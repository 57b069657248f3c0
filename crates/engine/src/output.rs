//! The workload's output on its way from frames to readers: counted against the limit, cut between characters, its last
//! part kept for the result.

use std::collections::VecDeque;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use protocol::Stream;
use wire::Chunk;

/// Bytes of each stream that the result repeats.
const TAIL_BYTES: usize = 64 * 1024;

/// Both streams of one session.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: Pipe,
    stderr: Pipe,
    left: u64,
}

/// The last part of both streams.
#[derive(Debug, Default)]
pub(crate) struct Tails {
    pub(crate) stdout: Tail,
    pub(crate) stderr: Tail,
}

/// The last part of a stream.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    pub(crate) text: String,
    /// Bytes that came before it.
    pub(crate) offset: u64,
}

/// Whether output is still within its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Budget {
    Within,
    Exceeded,
}

#[derive(Debug, Default)]
struct Pipe {
    offset: u64,
    /// The beginning of a character whose rest has not come yet: at most three bytes.
    carried: Vec<u8>,
    tail: VecDeque<u8>,
}

impl Output {
    /// For a session that may write `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self { stdout: Pipe::default(), stderr: Pipe::default(), left: limit }
    }

    /// Takes bytes, and gives what readers should see of them. Bytes over the limit are dropped.
    pub(crate) fn push(&mut self, stream: Stream, mut bytes: &[u8]) -> (Option<Chunk>, Budget) {
        let allowed = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let budget = if allowed < bytes.len() { Budget::Exceeded } else { Budget::Within };
        bytes = &bytes[..allowed];
        self.left -= u64::try_from(allowed).unwrap_or(self.left);
        (self.pipe(stream).push(bytes), budget)
    }

    /// Takes bytes of which only the last part is wanted.
    pub(crate) fn keep(&mut self, stream: Stream, bytes: &[u8]) {
        self.pipe(stream).keep(bytes);
    }

    /// Gives the unfinished characters at the end of both streams.
    pub(crate) fn finish(&mut self) -> Vec<(Stream, Chunk)> {
        [Stream::Stdout, Stream::Stderr]
            .into_iter()
            .filter_map(|stream| {
                let pipe = self.pipe(stream);
                let rest = std::mem::take(&mut pipe.carried);
                pipe.chunk(&rest).map(|chunk| (stream, chunk))
            })
            .collect()
    }

    /// What the result repeats.
    pub(crate) fn tails(&self) -> Tails {
        Tails { stdout: self.stdout.tail(), stderr: self.stderr.tail() }
    }

    fn pipe(&mut self, stream: Stream) -> &mut Pipe {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

impl Pipe {
    fn push(&mut self, bytes: &[u8]) -> Option<Chunk> {
        let mut whole = std::mem::take(&mut self.carried);
        whole.extend_from_slice(bytes);
        let cut = whole.len() - unfinished(&whole);
        self.carried = whole.split_off(cut);
        self.chunk(&whole)
    }

    fn chunk(&mut self, bytes: &[u8]) -> Option<Chunk> {
        if bytes.is_empty() {
            return None;
        }
        let offset = self.offset;
        self.keep(bytes);
        Some(match std::str::from_utf8(bytes) {
            Ok(text) => Chunk { text: text.to_owned(), base64: None, offset },
            Err(_) => Chunk {
                text: String::from_utf8_lossy(bytes).into_owned(),
                base64: Some(STANDARD.encode(bytes)),
                offset,
            },
        })
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.offset += u64::try_from(bytes.len()).unwrap_or(0);
        self.tail.extend(bytes);
        if self.tail.len() > TAIL_BYTES {
            self.tail.drain(..self.tail.len() - TAIL_BYTES);
        }
    }

    fn tail(&self) -> Tail {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        let before = self.offset - bytes.len() as u64;
        // A tail that was cut may begin inside a character.
        let start =
            if before > 0 { bytes.iter().take(3).take_while(|byte| (**byte & 0xc0) == 0x80).count() } else { 0 };
        Tail { text: String::from_utf8_lossy(&bytes[start..]).into_owned(), offset: before + start as u64 }
    }
}

/// How many bytes at the end are the beginning of a character that could still become whole.
fn unfinished(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let byte = bytes[bytes.len() - back];
        let needed = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        return if back < needed { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_never_cut_and_nothing_is_lost() {
        let text = "aé漢🎉".repeat(20);
        for size in 1..7 {
            let mut output = Output::new(u64::MAX);
            let mut seen = String::new();
            for piece in text.as_bytes().chunks(size) {
                if let (Some(chunk), _) = output.push(Stream::Stdout, piece) {
                    assert_eq!(chunk.base64, None);
                    assert_eq!(chunk.offset, u64::try_from(seen.len()).unwrap());
                    seen.push_str(&chunk.text);
                }
            }
            assert_eq!(output.finish().len(), 0);
            assert_eq!(seen, text);
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_come_exactly() {
        let mut output = Output::new(u64::MAX);
        let (chunk, _) = output.push(Stream::Stderr, &[b'a', 0xff, b'b', 0xf0]);
        let chunk = chunk.unwrap();
        assert_eq!((chunk.text.as_str(), chunk.base64.as_deref()), ("a\u{fffd}b", Some("Yf9i")));
        let rest = output.finish();
        assert_eq!((rest[0].0, rest[0].1.base64.as_deref()), (Stream::Stderr, Some("8A==")));
    }

    #[test]
    fn the_limit_counts_both_streams_and_cuts_exactly() {
        let mut output = Output::new(5);
        assert_eq!(output.push(Stream::Stdout, b"abc").1, Budget::Within);
        let (chunk, budget) = output.push(Stream::Stderr, b"defg");
        assert_eq!((chunk.unwrap().text.as_str(), budget), ("de", Budget::Exceeded));
        let tails = output.tails();
        assert_eq!((tails.stdout.text.as_str(), tails.stderr.text.as_str()), ("abc", "de"));
    }

    #[test]
    fn the_tail_is_the_last_part_and_says_where_it_begins() {
        for before in ["x", "xy"] {
            let mut output = Output::new(u64::MAX);
            let line = format!("{before}{}z", "é".repeat(TAIL_BYTES));
            output.push(Stream::Stdout, line.as_bytes());
            output.push(Stream::Stderr, b"whole");
            let Tails { stdout, stderr } = output.tails();
            assert_eq!((stderr.text.as_str(), stderr.offset), ("whole", 0));
            assert!(stdout.text.len() > TAIL_BYTES - 4);
            assert_eq!(line[usize::try_from(stdout.offset).unwrap()..], stdout.text);
        }
    }
}
