//! Escapes of percent-encoding, JSON and HTML, read one at a time.

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// Perhaps one; more has to be seen.
    Open,
    /// This character.
    Stands(char),
    /// This byte.
    Byte(u8),
    /// None: the first byte stands for itself.
    None,
}

/// The longest that is read: `&#x0010ffff;`.
pub(super) const MAX_ESCAPE_BYTES: usize = 12;

/// Entities by name that encoders write.
const NAMES: [&[u8]; 5] = [b"amp", b"lt", b"gt", b"quot", b"apos"];

pub(super) fn is_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Whether the byte may be seen differently with escapes undone.
pub(super) fn begins(byte: u8) -> bool {
    matches!(byte, b'%' | b'\\' | b'&') || is_break(byte)
}

/// Reads the escape that these bytes begin with. There is at least one, and never more than are needed.
pub(super) fn read(bytes: &[u8]) -> Escape {
    match bytes {
        [b'%', digits @ ..] | [b'\\', b'x', digits @ ..] => hex_byte(digits),
        [b'\\', b'u', digits @ ..] => match (number(digits, 16), digits.len()) {
            (None, 1..) => Escape::None,
            (Some(code), 4) => char::from_u32(code).map_or(Escape::None, Escape::Stands),
            (None | Some(_), _) => Escape::Open,
        },
        [b'\\' | b'&'] => Escape::Open,
        [b'\\', letter] => match letter {
            b'n' => Escape::Byte(b'\n'),
            b'r' => Escape::Byte(b'\r'),
            b't' => Escape::Byte(b'\t'),
            b'b' => Escape::Byte(8),
            b'f' => Escape::Byte(12),
            b'"' | b'\'' | b'\\' | b'/' => Escape::Byte(*letter),
            _ => Escape::None,
        },
        [b'&', name @ .., b';'] => entity(name),
        [b'&', name @ ..] => {
            let open =
                bytes.len() < MAX_ESCAPE_BYTES && (is_number(name) || NAMES.iter().any(|own| own.starts_with(name)));
            if open { Escape::Open } else { Escape::None }
        }
        _ => Escape::None,
    }
}

fn is_number(name: &[u8]) -> bool {
    match name {
        [b'#', b'x' | b'X', digits @ ..] => digits.iter().all(u8::is_ascii_hexdigit),
        [b'#', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

fn hex_byte(digits: &[u8]) -> Escape {
    match (number(digits, 16), digits.len()) {
        (None, 1..) => Escape::None,
        (Some(code), 2) => u8::try_from(code).map_or(Escape::None, Escape::Byte),
        (None | Some(_), _) => Escape::Open,
    }
}

fn entity(name: &[u8]) -> Escape {
    let code = match name {
        b"amp" => return Escape::Byte(b'&'),
        b"lt" => return Escape::Byte(b'<'),
        b"gt" => return Escape::Byte(b'>'),
        b"quot" => return Escape::Byte(b'"'),
        b"apos" => return Escape::Byte(b'\''),
        [b'#', b'x' | b'X', digits @ ..] => number(digits, 16),
        [b'#', digits @ ..] => number(digits, 10),
        _ => None,
    };
    code.and_then(char::from_u32).map_or(Escape::None, Escape::Stands)
}

/// Nothing but digits, and at least one.
fn number(digits: &[u8], radix: u32) -> Option<u32> {
    digits
        .iter()
        .try_fold((0u32, false), |(sum, _), byte| {
            let digit = char::from(*byte).to_digit(radix)?;
            Some((sum.checked_mul(radix)?.checked_add(digit)?, true))
        })
        .and_then(|(sum, any)| any.then_some(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_and_nothing_else_is() {
        for (text, meant) in [
            ("%", Escape::Open),
            ("%4", Escape::Open),
            ("%41", Escape::Byte(b'A')),
            ("%g", Escape::None),
            ("%4g", Escape::None),
            ("\\", Escape::Open),
            ("\\u00", Escape::Open),
            ("\\u002B", Escape::Stands('+')),
            ("\\ud800", Escape::None),
            ("\\x2b", Escape::Byte(b'+')),
            ("\\/", Escape::Byte(b'/')),
            ("\\q", Escape::None),
            ("&", Escape::Open),
            ("&am", Escape::Open),
            ("&amp;", Escape::Byte(b'&')),
            ("&#43;", Escape::Stands('+')),
            ("&#x2B;", Escape::Stands('+')),
            ("&nbsp;", Escape::None),
            ("&a ", Escape::None),
            ("&length", Escape::None),
            ("&#00000043", Escape::Open),
            ("&#43 ", Escape::None),
            ("a", Escape::None),
        ] {
            assert_eq!(read(text.as_bytes()), meant, "{text}");
        }
    }
}
