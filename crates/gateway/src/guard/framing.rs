//! Where requests begin and end.

/// Why a request is refused, in words.
pub(crate) type Fault = &'static str;

/// Longest head of a request, as of most servers' several kilobytes and then some.
pub(crate) const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Most headers of a request; the server behind has the same limit.
pub(crate) const MAX_HEADERS: usize = 100;
/// Longest line before a chunk, with its extensions.
const MAX_CHUNK_LINE_BYTES: usize = 1024;
/// Longest trailers of a body.
const MAX_TRAILER_BYTES: usize = 8 * 1024;

/// Where in the stream of requests the next byte is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Framing {
    /// At the head of a request.
    #[default]
    Head,
    /// In a body, with so many bytes to come.
    Body(u64),
    /// At the line before a chunk.
    ChunkLine,
    /// In a chunk, with so many bytes to come, its line end included.
    Chunk(u64),
    /// In the trailers, of which so many bytes went through.
    Trailers(usize),
    /// Behind CONNECT: no requests any more.
    Tunnel,
}

/// How the body of a request is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Length(u64),
    Chunked,
    Tunnel,
}

impl Framing {
    /// How many of these bytes may go through; no more than to the end of what is being framed. None may while a head
    /// or a line is not whole.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        if bytes.is_empty() {
            return Ok(0);
        }
        match *self {
            Self::Tunnel => Ok(bytes.len()),
            Self::Head => self.head(bytes),
            Self::Body(left) => {
                let (through, left) = part(bytes, left);
                *self = if left == 0 { Self::Head } else { Self::Body(left) };
                Ok(through)
            }
            Self::ChunkLine => {
                let Some(line) = line(bytes, MAX_CHUNK_LINE_BYTES, "a chunk without a length")? else { return Ok(0) };
                *self = match chunk_length(&bytes[..line])? {
                    0 => Self::Trailers(0),
                    length => Self::Chunk(length + 2),
                };
                Ok(line + 2)
            }
            Self::Chunk(left) => {
                let (through, rest) = part(bytes, left);
                chunk_end(&bytes[..through], left)?;
                *self = if rest == 0 { Self::ChunkLine } else { Self::Chunk(rest) };
                Ok(through)
            }
            Self::Trailers(before) => {
                let Some(line) = line(bytes, MAX_TRAILER_BYTES, "trailers without an end")? else { return Ok(0) };
                let length = before + line + 2;
                if length > MAX_TRAILER_BYTES {
                    return Err("trailers without an end");
                }
                *self = if line == 0 { Self::Head } else { Self::Trailers(length) };
                Ok(line + 2)
            }
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let room = MAX_HEAD_BYTES.saturating_sub(at);
            let Some(line) = line(rest, room, "a head that is too long")? else { return Ok(0) };
            // An empty line before a request is what some clients send behind a body; the server takes it, too.
            if line == 0 && at > 0 {
                at += 2;
                break;
            }
            if line == 0 {
                return Ok(2);
            }
            at += line + 2;
        }
        *self = match body(&bytes[..at])? {
            Body::Length(0) => Self::Head,
            Body::Length(length) => Self::Body(length),
            Body::Chunked => Self::ChunkLine,
            Body::Tunnel => Self::Tunnel,
        };
        Ok(at)
    }
}

/// How much of what is left is here, and what is left then.
fn part(bytes: &[u8], left: u64) -> (usize, u64) {
    let through = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    (through, left - through as u64)
}

/// The length of the first line, without its end; none when the end has not come. A line feed or a carriage return that
/// is not one of a pair ends lines for some and not for others.
fn line(bytes: &[u8], longest: usize, too_long: Fault) -> Result<Option<usize>, Fault> {
    for (at, byte) in bytes.iter().enumerate().take(longest) {
        match byte {
            b'\n' => return Err("a bare line feed"),
            b'\r' => {
                return match bytes.get(at + 1) {
                    None => Ok(None),
                    Some(b'\n') => Ok(Some(at)),
                    Some(_) => Err("a bare carriage return"),
                };
            }
            _ => {}
        }
    }
    if bytes.len() >= longest { Err(too_long) } else { Ok(None) }
}

/// The framing of the body behind a whole head.
fn body(head: &[u8]) -> Result<Body, Fault> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err("too many headers"),
        Ok(httparse::Status::Complete(_) | httparse::Status::Partial) | Err(_) => return Err("a malformed head"),
    }
    let old = request.version != Some(1);
    let mut length = None;
    let mut chunked = false;
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            if length.is_some() {
                return Err("more than one Content-Length");
            }
            length = Some(number(header.value).ok_or("a Content-Length that is no number")?);
        }
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked {
                return Err("more than one Transfer-Encoding");
            }
            if old || !header.value.eq_ignore_ascii_case(b"chunked") {
                return Err("a Transfer-Encoding other than chunked");
            }
            chunked = true;
        }
        // Some servers take these for the real ones.
        if header.name.eq_ignore_ascii_case("content_length") || header.name.eq_ignore_ascii_case("transfer_encoding") {
            return Err("a header that looks like a length");
        }
    }
    match (request.method == Some("CONNECT"), length, chunked) {
        (true, None, false) => Ok(Body::Tunnel),
        (true, _, _) => Err("CONNECT with a body"),
        (false, Some(_), true) => Err("both Content-Length and Transfer-Encoding"),
        (false, Some(length), false) => Ok(Body::Length(length)),
        (false, None, true) => Ok(Body::Chunked),
        (false, None, false) => Ok(Body::Length(0)),
    }
}

/// Digits alone: no sign, no list, nothing that overflows anywhere.
fn number(value: &[u8]) -> Option<u64> {
    let plain = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    plain.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

/// Hexadecimal digits, and extensions, which mean nothing.
fn chunk_length(line: &[u8]) -> Result<u64, Fault> {
    let end = line.iter().position(|byte| *byte == b';').unwrap_or(line.len());
    let (digits, extension) = line.split_at(end);
    let plain = (1..=15).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    if !plain || extension.iter().any(|byte| !matches!(byte, b'\t' | b' '..=b'~')) {
        return Err("a chunk without a length");
    }
    let digits = std::str::from_utf8(digits).map_err(|_| "a chunk without a length")?;
    u64::from_str_radix(digits, 16).map_err(|_| "a chunk without a length")
}

/// The last two bytes of a chunk's `left` are its line end; as many of them as are here have to be.
fn chunk_end(bytes: &[u8], left: u64) -> Result<(), Fault> {
    for (byte, expected) in [(2, b'\r'), (1, b'\n')] {
        // How far from the beginning the byte is that is so far from the end.
        let Some(at) = left.checked_sub(byte) else { continue };
        if let Some(found) = usize::try_from(at).ok().and_then(|at| bytes.get(at))
            && *found != expected
        {
            return Err("a chunk without an end");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
