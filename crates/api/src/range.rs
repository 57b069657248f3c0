//! One range of bytes (RFC 9110): what part of a file was asked for.

use std::ops::Range;

use http::{HeaderMap, HeaderValue, header};

/// What the caller asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Everything: no range, several of them, or one that is not understood, which is to be ignored.
    Whole,
    /// This part.
    Part(Range<u64>),
    /// A part that begins behind the end.
    Unsatisfiable,
}

/// Reads the header. Whoever makes the range depend on a validator gets everything, unless that is `current`.
pub(crate) fn wanted(headers: &HeaderMap, size: u64, current: Option<&str>) -> Wanted {
    let if_range = headers.get(header::IF_RANGE).map(HeaderValue::as_bytes);
    if if_range.is_some_and(|given| current.is_none_or(|current| given != current.as_bytes())) {
        return Wanted::Whole;
    }
    let mut values = headers.get_all(header::RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Wanted::Whole };
    let text = value.to_str().unwrap_or_default();
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|text| text.split_once('-')) else {
        return Wanted::Whole;
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => Wanted::Whole,
        (Some(first), Some(_)) if first >= size => Wanted::Unsatisfiable,
        (Some(first), Some(last)) => Wanted::Part(first..last.saturating_add(1).min(size)),
        (Some(first), None) if last.is_empty() => {
            if first >= size {
                Wanted::Unsatisfiable
            } else {
                Wanted::Part(first..size)
            }
        }
        (None, Some(count)) if first.is_empty() => {
            if count == 0 || size == 0 {
                Wanted::Unsatisfiable
            } else {
                Wanted::Part(size.saturating_sub(count)..size)
            }
        }
        (Some(_) | None, None) | (None, Some(_)) => Wanted::Whole,
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // More than there can be is as good as the most there can be.
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// `Content-Range` of a part.
pub(crate) fn content_range(part: &Range<u64>, size: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1)))
        .expect("digits are visible")
}

/// `Content-Range` of a refusal.
pub(crate) fn no_range(size: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("bytes */{size}")).expect("digits are visible")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(range: &str, size: u64) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_str(range).unwrap());
        wanted(&headers, size, None)
    }

    #[test]
    fn one_range_is_read_and_cut_at_the_end() {
        assert_eq!(read("bytes=0-0", 10), Wanted::Part(0..1));
        assert_eq!(read("bytes=2-", 10), Wanted::Part(2..10));
        assert_eq!(read("bytes=-3", 10), Wanted::Part(7..10));
        assert_eq!(read("bytes=-30", 10), Wanted::Part(0..10));
        assert_eq!(read("bytes=9-18446744073709551615", 10), Wanted::Part(9..10));
        assert_eq!(read("bytes=9-99999999999999999999999", 10), Wanted::Part(9..10));
    }

    #[test]
    fn behind_the_end_there_is_nothing() {
        for (range, size) in
            [("bytes=10-", 10), ("bytes=10-20", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-1", 0)]
        {
            assert_eq!(read(range, size), Wanted::Unsatisfiable, "{range} of {size}");
        }
    }

    #[test]
    fn what_is_no_single_range_is_ignored() {
        for range in
            ["bytes=0-1,3-4", "bytes=2-1", "bytes=", "bytes=-", "bytes=a-b", "items=0-1", "bytes=+1-2", "bytes 0-1", ""]
        {
            assert_eq!(read(range, 10), Wanted::Whole, "{range:?}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(wanted(&headers, 10, None), Wanted::Whole);
        headers.append(header::RANGE, HeaderValue::from_static("bytes=0-1"));
        headers.append(header::IF_RANGE, HeaderValue::from_static("\"a\""));
        assert_eq!(wanted(&headers, 10, None), Wanted::Whole);
        assert_eq!(wanted(&headers, 10, Some("\"b\"")), Wanted::Whole);
        assert_eq!(wanted(&headers, 10, Some("\"a\"")), Wanted::Part(0..2));
        headers.append(header::RANGE, HeaderValue::from_static("bytes=0-1"));
        assert_eq!(wanted(&headers, 10, Some("\"a\"")), Wanted::Whole);
    }
}
