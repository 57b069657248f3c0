//! Patterns of paths: `*` stands for any part of a segment, `**` for any number of segments.
//!
//! Matching takes time in proportion to pattern and path at most, whatever either of them is.

/// A pattern, divided into its segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<String>);

impl Pattern {
    /// Reads one, with or without a slash before it. Every text is one; who takes it from a caller checks it first.
    pub fn new(text: &str) -> Self {
        Self(text.strip_prefix('/').unwrap_or(text).split('/').map(str::to_owned).collect())
    }

    /// Whether it fits the whole of a path, given by its segments.
    pub fn fits<S: AsRef<str>>(&self, path: &[S]) -> bool {
        let one = |part: &String, segment: &S| segment_fits(part.as_bytes(), segment.as_ref().as_bytes());
        fits(&self.0, path, |part| part == "**", one)
    }

    /// Its last segment.
    pub fn last(&self) -> Option<&str> {
        self.0.last().map(String::as_str)
    }
}

impl std::fmt::Display for Pattern {
    /// Without a slash before it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

/// `*` alone stands for a whole segment, which is not empty.
fn segment_fits(pattern: &[u8], segment: &[u8]) -> bool {
    if pattern == b"*" {
        return !segment.is_empty();
    }
    fits(pattern, segment, |byte| *byte == b'*', |one, byte| one == byte)
}

/// Whether a pattern fits the whole of a text. A part that `is_any` stands for any number of items, also none; every other
/// part for the one item that `is_one` says.
pub(crate) fn fits<P, T>(
    pattern: &[P],
    text: &[T],
    is_any: impl Fn(&P) -> bool,
    is_one: impl Fn(&P, &T) -> bool,
) -> bool {
    // Where the last any was, and where what it stands for ends: only the last has to be tried again, since what an
    // earlier one could take it can take as well.
    let (mut p, mut t, mut retry) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(part) if is_any(part) => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(part) if is_one(part, &text[t]) => {
                p += 1;
                t += 1;
            }
            Some(_) | None => match &mut retry {
                Some((after, taken)) => {
                    *taken += 1;
                    (p, t) = (*after, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(is_any)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn does(pattern: &str, path: &str) -> bool {
        Pattern::new(pattern).fits(&path.strip_prefix('/').unwrap_or(path).split('/').collect::<Vec<_>>())
    }

    #[test]
    fn stars_stand_for_parts_of_segments_and_for_many_segments() {
        for (pattern, path, expected) in [
            ("/user", "/user", true),
            ("/user", "/user/x", false),
            ("/repos/*/issues", "/repos/a/issues", true),
            ("/repos/*/issues", "/repos/a/b/issues", false),
            ("/repos/*", "/repos/", false),
            ("/repos/**", "/repos/a/b/issues", true),
            ("/repos/**", "/repos", true),
            ("/a*c/**/z", "/abc/z", true),
            ("/a*c/**/z", "/abc/x/y/z", true),
            ("/a*c/**/z", "/abd/z", false),
            ("**/*.py", "a.py", true),
            ("**/*.py", "x/y/a.py", true),
        ] {
            assert_eq!(does(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_does_not_blow_up() {
        let pattern = "*a".repeat(1000);
        assert!(!does(&pattern, &"a".repeat(8000).replace("aaaa", "aaab")));
        assert!(!does(&"**/a/".repeat(1000), &"a/".repeat(4000).replace("a/a/", "a/b/")));
    }

    proptest! {
        #[test]
        fn a_segment_fits_as_the_obvious_slow_way_says(pattern in "[ab*]{0,8}", text in "[ab]{0,8}") {
            fn slow(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|from| slow(rest, &text[from..])),
                    Some((one, rest)) => text.split_first().is_some_and(|(first, text)| first == one && slow(rest, text)),
                }
            }
            let expected = slow(pattern.as_bytes(), text.as_bytes()) && (pattern != "*" || !text.is_empty());
            prop_assert_eq!(segment_fits(pattern.as_bytes(), text.as_bytes()), expected);
        }
    }
}
