//! Length-prefixed framing. The decoder never holds more than one frame plus what the last read brought.

use serde::{Serialize, de::DeserializeOwned};

/// Largest frame payload: a result or a report of a turn of the largest size, with room for its envelope; code and files travel under the
/// request body limit, which is smaller.
pub const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;

const PREFIX: usize = 4;

/// Why bytes could not be read as frames. After any of these the pipe is unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The length prefix announces more than [`MAX_FRAME_BYTES`].
    #[error("frame of {0} bytes is over the limit of {MAX_FRAME_BYTES}")]
    TooLarge(usize),
    /// The payload is not a frame of the expected direction.
    #[error("malformed frame")]
    Malformed,
    /// The payload holds a frame and then more bytes.
    #[error("frame with {0} trailing bytes")]
    Trailing(usize),
}

/// Why a frame could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The encoded frame would be over [`MAX_FRAME_BYTES`].
    #[error("frame of {0} bytes is over the limit of {MAX_FRAME_BYTES}")]
    TooLarge(usize),
    /// The frame holds something that has no encoding.
    #[error("frame cannot be encoded")]
    Unencodable,
}

/// Encodes one frame, prefix included.
pub fn encode<F: Serialize>(frame: &F) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = postcard::to_extend(frame, vec![0_u8; PREFIX]).map_err(|_| EncodeError::Unencodable)?;
    let len = bytes.len() - PREFIX;
    if len > MAX_FRAME_BYTES {
        return Err(EncodeError::TooLarge(len));
    }
    let prefix = u32::try_from(len).map_err(|_| EncodeError::TooLarge(len))?.to_be_bytes();
    bytes[..PREFIX].copy_from_slice(&prefix);
    Ok(bytes)
}

/// Cuts a stream of bytes into frames. Feed it with [`Decoder::push`], then take frames until there is none.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Start of the unread part of `buffer`; moved to the front when more bytes come in.
    read: usize,
}

impl Decoder {
    /// An empty decoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes as they came from the pipe.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.read > 0 {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or none until more bytes come.
    pub fn next_frame<F: DeserializeOwned>(&mut self) -> Result<Option<F>, DecodeError> {
        let unread = &self.buffer[self.read..];
        let Some((prefix, rest)) = unread.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let len = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if len > MAX_FRAME_BYTES {
            return Err(DecodeError::TooLarge(len));
        }
        let Some(payload) = rest.get(..len) else {
            return Ok(None);
        };
        let (frame, trailing) = postcard::take_from_bytes::<F>(payload).map_err(|_| DecodeError::Malformed)?;
        if !trailing.is_empty() {
            return Err(DecodeError::Trailing(trailing.len()));
        }
        self.read += PREFIX + len;
        Ok(Some(frame))
    }

    /// Whether bytes of an unfinished frame are waiting: the pipe was cut in the middle of one.
    pub fn is_mid_frame(&self) -> bool {
        self.read < self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::{Exit, GuestFrame, Stream};

    fn frame() -> impl Strategy<Value = GuestFrame> {
        prop_oneof![
            any::<u16>().prop_map(|version| GuestFrame::Hello { version }),
            ".{0,40}".prop_map(|session_id| GuestFrame::Started { session_id }),
            proptest::collection::vec(any::<u8>(), 0..200)
                .prop_map(|data| GuestFrame::Output { stream: Stream::Stderr, data }),
            (".{0,40}", any::<u8>())
                .prop_map(|(session_id, code)| GuestFrame::Exited { session_id, exit: Exit::Code(code) }),
        ]
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting_of_the_stream(
            frames in proptest::collection::vec(frame(), 0..10),
            cut in 1_usize..64,
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|f| encode(f).expect("encodes")).collect();
            let mut decoder = Decoder::new();
            let mut seen = Vec::new();
            for chunk in bytes.chunks(cut) {
                decoder.push(chunk);
                while let Some(frame) = decoder.next_frame::<GuestFrame>().expect("decodes") {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen, frames);
            prop_assert!(!decoder.is_mid_frame());
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_never_allocate_past_the_limit(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut decoder = Decoder::new();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_frame::<GuestFrame>() {}
        }
    }

    #[test]
    fn an_announced_length_over_the_limit_is_refused_before_the_payload_comes() {
        let mut decoder = Decoder::new();
        decoder.push(&u32::MAX.to_be_bytes());
        assert_eq!(
            decoder.next_frame::<GuestFrame>(),
            Err(DecodeError::TooLarge(usize::try_from(u32::MAX).expect("fits")))
        );
    }

    #[test]
    fn bytes_behind_the_frame_are_refused() {
        let mut bytes = encode(&GuestFrame::Hello { version: 1 }).expect("encodes");
        bytes.push(0);
        let len = u32::try_from(bytes.len() - 4).expect("fits");
        bytes[..4].copy_from_slice(&len.to_be_bytes());
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        assert_eq!(decoder.next_frame::<GuestFrame>(), Err(DecodeError::Trailing(1)));
    }
}
