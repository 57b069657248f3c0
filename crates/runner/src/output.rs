//! The budget of a program's output: cut into frames, counted, and cut off.

use protocol::{GuestFrame, GuestLimit, Stream};

/// Counts stdout and stderr together.
#[derive(Debug)]
pub(crate) struct Budget {
    left: u64,
    exceeded: bool,
}

impl Budget {
    /// `limit` bytes may be forwarded.
    pub(crate) fn new(limit: u64) -> Self {
        Self { left: limit, exceeded: false }
    }

    /// Whether the program has written more than it may. Nothing of it needs to be read from then on.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.exceeded
    }

    /// Turns what was read (at most one chunk) into the frames to send for it.
    pub(crate) fn take(&mut self, stream: Stream, bytes: &[u8]) -> impl Iterator<Item = GuestFrame> + use<> {
        let allowed = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let over = allowed < bytes.len() && !self.exceeded;
        self.left -= allowed as u64;
        self.exceeded |= over;
        let output = (allowed > 0).then(|| GuestFrame::Output { stream, data: bytes[..allowed].to_vec() });
        output.into_iter().chain(over.then_some(GuestFrame::Exceeded { limit: GuestLimit::Output }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(data: &[u8]) -> GuestFrame {
        GuestFrame::Output { stream: Stream::Stdout, data: data.to_vec() }
    }

    #[test]
    fn exactly_the_limit_passes_and_one_byte_more_is_reported_once() {
        let mut budget = Budget::new(4);
        assert_eq!(budget.take(Stream::Stdout, b"ab").collect::<Vec<_>>(), [output(b"ab")]);
        assert_eq!(budget.take(Stream::Stdout, b"cd").collect::<Vec<_>>(), [output(b"cd")]);
        assert!(!budget.is_exceeded());
        let exceeded = GuestFrame::Exceeded { limit: GuestLimit::Output };
        assert_eq!(budget.take(Stream::Stdout, b"e").collect::<Vec<_>>(), [exceeded]);
        assert!(budget.is_exceeded());
        assert_eq!(budget.take(Stream::Stdout, b"f").count(), 0);
    }

    #[test]
    fn the_allowed_part_of_an_overrun_is_still_sent() {
        let frames: Vec<_> = Budget::new(2).take(Stream::Stdout, b"abc").collect();
        assert_eq!(frames, [output(b"ab"), GuestFrame::Exceeded { limit: GuestLimit::Output }]);
    }
}
