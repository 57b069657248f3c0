//! Server-sent events from bytes, with a bound on what one event may hold.
//!
//! Follows the parsing rules of the HTML standard, less the parts that the API does not use (`retry`, events without a
//! type). An event that was cut before its empty line is never seen.

use std::collections::VecDeque;

/// The largest event that is read, in bytes of its lines. The largest honest one is a result: two tails of 64 KiB that
/// consist of control characters (six bytes each in JSON) and 1 MiB of `enclave.result`.
pub const MAX_FRAME_BYTES: usize = 8 * 1024 * 1024;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RawEvent {
    pub(crate) id: Option<String>,
    pub(crate) kind: String,
    pub(crate) data: String,
}

/// Why the bytes are of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    TooLarge,
    NotText,
}

#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    event: RawEvent,
    has_data: bool,
    /// Bytes of the lines of the event so far.
    taken: usize,
    /// The last byte was a carriage return: a line feed right behind it belongs to it.
    after_return: bool,
}

impl Parser {
    /// Takes the next bytes of the stream, and puts the events that they complete behind those in `events`.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], events: &mut VecDeque<RawEvent>) -> Result<(), Unreadable> {
        if self.after_return && !bytes.is_empty() {
            self.after_return = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(at) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.take(&bytes[..at])?;
            if let Some(event) = self.end_line()? {
                events.push_back(event);
            }
            let ended_by_return = bytes[at] == b'\r';
            bytes = &bytes[at + 1..];
            if ended_by_return {
                self.after_return = bytes.is_empty();
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
        }
        self.take(bytes)
    }

    fn take(&mut self, part: &[u8]) -> Result<(), Unreadable> {
        self.taken += part.len();
        if self.taken > MAX_FRAME_BYTES {
            return Err(Unreadable::TooLarge);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<RawEvent>, Unreadable> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            self.taken = 0;
            let event = std::mem::take(&mut self.event);
            return Ok(std::mem::take(&mut self.has_data).then_some(event));
        }
        let line = std::str::from_utf8(&line).map_err(|_| Unreadable::NotText)?;
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" if !value.contains('\0') => self.event.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.event.kind),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // Comments (the heartbeat) have an empty field name. They end here too, so that a connection that carries
            // nothing else for days does not add up to one large event.
            "" => self.taken = self.taken.saturating_sub(line.len()),
            _ => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(chunks: &[&[u8]]) -> Result<Vec<RawEvent>, Unreadable> {
        let (mut parser, mut events) = (Parser::default(), VecDeque::new());
        for chunk in chunks {
            parser.feed(chunk, &mut events)?;
        }
        Ok(events.into())
    }

    fn event(id: &str, kind: &str, data: &str) -> RawEvent {
        RawEvent { id: Some(id.into()), kind: kind.into(), data: data.into() }
    }

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let text = "id: 1\r\nevent: stdout\r\ndata: {\"é\":1}\r\n\r\n: heartbeat\n\nid:2\nevent:end\ndata: a\ndata:  b\n\nid: 3\r\rdata\r\r";
        let whole = parse(&[text.as_bytes()]).unwrap();
        assert_eq!(
            whole,
            [
                event("1", "stdout", "{\"é\":1}"),
                event("2", "end", "a\n b"),
                RawEvent { id: None, kind: String::new(), data: String::new() },
            ]
        );
        for size in 1..text.len() {
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(parse(&chunks).unwrap(), whole, "in chunks of {size}");
        }
    }

    #[test]
    fn an_event_that_was_cut_is_never_seen() {
        assert_eq!(parse(&[b"id: 1\nevent: end\ndata: {}\n"]).unwrap(), []);
    }

    #[test]
    fn unknown_fields_and_garbage_lines_are_passed_over() {
        let events = parse(&[b"retry: 5\ngarbage\n\x01\x02\nid: 1\ndata: x\n\n"]).unwrap();
        assert_eq!(events, [event("1", "", "x")]);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let chunk = vec![b'x'; 1 << 20];
        let chunks: Vec<&[u8]> = (0..9).map(|_| chunk.as_slice()).collect();
        assert_eq!(parse(&chunks), Err(Unreadable::TooLarge));
    }

    #[test]
    fn an_event_of_many_lines_is_refused_too() {
        let line = [b"data: ".as_slice(), &vec![b'x'; 1 << 20], b"\n"].concat();
        let chunks: Vec<&[u8]> = (0..9).map(|_| line.as_slice()).collect();
        assert_eq!(parse(&chunks), Err(Unreadable::TooLarge));
    }

    #[test]
    fn heartbeats_for_ever_are_no_large_event() {
        let heartbeats = b": heartbeat\n".repeat(1 << 16);
        let chunks: Vec<&[u8]> = (0..16).map(|_| heartbeats.as_slice()).collect();
        assert_eq!(parse(&chunks).unwrap(), []);
    }

    #[test]
    fn bytes_that_are_not_text_are_refused() {
        assert_eq!(parse(&[b"data: \xff\n\n"]), Err(Unreadable::NotText));
    }
}
