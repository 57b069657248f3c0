//! `artifacts`: which files are kept when the workload has ended.

use protocol::path;
use wire::FieldError;

use crate::pattern::fits;

/// Globs of one request.
const MAX_GLOBS: usize = 32;
/// Bytes of all of them. With paths of at most 1 KiB, this bounds what comparing one path can cost.
const MAX_GLOB_BYTES: usize = 2048;

/// A glob: parts divided by `/`, as a path's are. `*` stands for any characters of a part, `?` for one, and a part that is
/// `**` for any number of parts, none included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    text: String,
}

impl Glob {
    /// Whether a path below the working directory is meant. Never more steps than the bytes of both multiplied.
    pub fn matches(&self, path: &str) -> bool {
        let (glob, path): (Vec<_>, Vec<_>) = (self.text.split('/').collect(), path.split('/').collect());
        fits(&glob, &path, |part| *part == "**", |glob, part| part_matches(glob, part))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn part_matches(glob: &str, part: &str) -> bool {
    let (glob, part): (Vec<_>, Vec<_>) = (glob.chars().collect(), part.chars().collect());
    fits(&glob, &part, |char| *char == '*', |glob, char| *glob == '?' || glob == char)
}

/// Decides on all of them.
pub(super) fn decide(globs: Vec<String>, faults: &mut Vec<FieldError>) -> Vec<Glob> {
    if globs.len() > MAX_GLOBS {
        faults.push(FieldError::new("artifacts", format!("must have at most {MAX_GLOBS} entries")));
    }
    if globs.iter().map(String::len).sum::<usize>() > MAX_GLOB_BYTES {
        faults.push(FieldError::new("artifacts", format!("must be at most {MAX_GLOB_BYTES} bytes together")));
    }
    for (index, glob) in globs.iter().enumerate() {
        let mut fault = |message: String| faults.push(FieldError::new(format!("artifacts[{index}]"), message));
        if let Err(error) = path::check(glob) {
            fault(error.to_string());
        } else if glob.contains(['[', ']', '{', '}', '\\']) {
            fault("knows *, ? and ** alone: no [ ] { } and no \\".to_owned());
        } else if glob.split('/').any(|part| part.contains("**") && part != "**") {
            fault("has ** beside something else: it stands for whole parts".to_owned());
        }
    }
    globs.into_iter().map(|text| Glob { text }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(glob: &str, path: &str) -> bool {
        let mut faults = Vec::new();
        let decided = decide(vec![glob.to_owned()], &mut faults);
        assert_eq!(faults, [], "{glob}");
        decided[0].matches(path)
    }

    #[test]
    fn stars_stay_within_a_part_and_double_stars_do_not() {
        for (glob, path) in [
            ("a.txt", "a.txt"),
            ("*.txt", "a.txt"),
            ("*", "a"),
            ("out/*", "out/a"),
            ("out/**", "out/a/b/c"),
            ("**", "a/b"),
            ("**/x", "x"),
            ("**/x", "a/b/x"),
            ("a/**/b", "a/b"),
            ("a/**/b/**/c", "a/x/b/y/z/c"),
            ("?.t*t", "ä.text"),
            ("*a*b*c", "xxaxxbxxc"),
            ("**/a/*/b", "a/a/x/b"),
        ] {
            assert!(matches(glob, path), "{glob} {path}");
        }
        for (glob, path) in [
            ("*.txt", "a/b.txt"),
            ("*", "a/b"),
            ("out/*", "out"),
            ("out/*", "out/a/b"),
            ("a/**/b", "a/x"),
            ("?", ""),
            ("?", "ab"),
            ("**/x", "a/xx"),
            ("A", "a"),
        ] {
            assert!(!matches(glob, path), "{glob} {path}");
        }
    }

    #[test]
    fn what_is_no_glob_is_refused_with_the_others() {
        let globs = ["../*", "/etc/*", "a//b", "a\nb", "", "[ab]", "{a,b}", "a**", "**b/c", "a\\*"];
        let mut faults = Vec::new();
        decide(globs.map(str::to_owned).to_vec(), &mut faults);
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.clone()).collect();
        assert_eq!(fields, (0..globs.len()).map(|index| format!("artifacts[{index}]")).collect::<Vec<_>>());
        let mut faults = Vec::new();
        decide(vec!["a".repeat(64); 33], &mut faults);
        assert_eq!(faults.len(), 2, "{faults:?}");
    }

    #[test]
    fn a_glob_that_goes_back_for_ever_does_not() {
        let began = std::time::Instant::now();
        let glob = format!("{}b", "*a".repeat(120));
        assert!(!matches(&glob, &"a".repeat(255)));
        let glob = format!("{}/b", ["**", "a"].repeat(15).join("/"));
        assert!(!matches(&glob, &["a"; 32].join("/")));
        assert!(began.elapsed() < std::time::Duration::from_secs(1), "{:?}", began.elapsed());
    }

    proptest! {
        #[test]
        fn it_is_as_a_slow_and_simple_reading_says(glob in "[ab*?]{0,7}", text in "[ab]{0,7}") {
            fn simple(glob: &[u8], text: &[u8]) -> bool {
                match (glob.split_first(), text.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), None) => simple(rest, text),
                    (Some((b'*', rest)), Some((_, behind))) => simple(rest, text) || simple(glob, behind),
                    (Some((own, rest)), Some((byte, behind))) => (*own == b'?' || own == byte) && simple(rest, behind),
                    (None, Some(_)) | (Some(_), None) => false,
                }
            }
            prop_assert_eq!(part_matches(&glob, &text), simple(glob.as_bytes(), text.as_bytes()));
        }
    }
}
