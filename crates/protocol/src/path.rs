//! Which names a file may have that is put below the working directory. Every name comes from a stranger: a request, or a
//! repository.

/// Bytes of a whole path: well under what the kernel takes, with the working directory in front.
pub const MAX_PATH_BYTES: usize = 1024;
/// Bytes of one component; what every file system takes.
pub const MAX_NAME_BYTES: usize = 255;
/// Components of a path.
pub const MAX_DEPTH: usize = 32;

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing at all.
    #[error("must not be empty")]
    Empty,
    /// It begins at the root.
    #[error("must be relative")]
    Absolute,
    /// It leads up, nowhere, or has an empty part.
    #[error("must have no empty part, no . and no ..")]
    Part,
    /// NUL, a line end, or another control character.
    #[error("must have no control characters")]
    Control,
    /// See the constants.
    #[error("must be at most {MAX_PATH_BYTES} bytes, {MAX_DEPTH} parts deep, {MAX_NAME_BYTES} bytes in each")]
    TooLong,
}

/// Whether this may be the path of something below the working directory.
pub fn check(path: &str) -> Result<(), PathError> {
    if path.is_empty() {
        return Err(PathError::Empty);
    }
    if path.starts_with('/') {
        return Err(PathError::Absolute);
    }
    if path.len() > MAX_PATH_BYTES || path.split('/').count() > MAX_DEPTH {
        return Err(PathError::TooLong);
    }
    if path.chars().any(char::is_control) {
        return Err(PathError::Control);
    }
    for part in path.split('/') {
        if part.is_empty() || part == "." || part == ".." {
            return Err(PathError::Part);
        }
        if part.len() > MAX_NAME_BYTES {
            return Err(PathError::TooLong);
        }
    }
    Ok(())
}

/// Whether a symbolic link at `path` with this target stays below the working directory, as far as its text says. What
/// it leads through may be links as well, so nothing is ever put through one.
pub fn link_stays_inside(path: &str, target: &str) -> bool {
    if target.is_empty()
        || target.len() > MAX_PATH_BYTES
        || target.starts_with('/')
        || target.chars().any(char::is_control)
    {
        return false;
    }
    let mut depth = path.split('/').count() - 1;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if depth == 0 => return false,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_names_are_taken() {
        for path in ["a", "a/b.py", ".hidden/..x", "zwölf/✓", "a b/-c", "a\\b", &format!("{}f", "d/".repeat(31))] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for (path, error) in [
            ("", PathError::Empty),
            ("/etc/passwd", PathError::Absolute),
            ("..", PathError::Part),
            ("a/../../b", PathError::Part),
            ("a//b", PathError::Part),
            ("a/", PathError::Part),
            ("./a", PathError::Part),
            ("a\0b", PathError::Control),
            ("a\nb", PathError::Control),
            ("a\u{85}b", PathError::Control),
            (&"a".repeat(256), PathError::TooLong),
            (&"a/".repeat(600), PathError::TooLong),
            (&format!("{}f", "d/".repeat(32)), PathError::TooLong),
        ] {
            assert_eq!(check(path), Err(error), "{path:?}");
        }
    }

    #[test]
    fn a_link_that_leads_out_is_told() {
        for (path, target) in [("a", "b"), ("a/b/c", "../../d"), ("a", "./x/../y"), ("a/b", "..//c"), ("a", ".")] {
            assert!(link_stays_inside(path, target), "{path} -> {target}");
        }
        for (path, target) in
            [("a", "/etc/shadow"), ("a", "../x"), ("a/b", "../../x"), ("a", "x/../../y"), ("a", ""), ("a", "b\0")]
        {
            assert!(!link_stays_inside(path, target), "{path} -> {target}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_stays_below_where_it_is_put(path in "[a./\\-\\PC]{0,24}") {
            if check(&path).is_ok() {
                let parts: Vec<_> = Path::new(&path).components().collect();
                prop_assert!(parts.iter().all(|part| matches!(part, Component::Normal(_))));
                // The parts that the kernel sees are the parts that were looked at.
                prop_assert_eq!(parts.len(), path.split('/').count());
            }
        }

        #[test]
        fn a_link_that_is_taken_resolves_below_where_it_is_put(path in "[ab]{1}(/[ab]){0,3}", target in "([ab]|\\.\\.|\\.|)(/([ab]|\\.\\.|\\.|)){0,5}") {
            if link_stays_inside(&path, &target) {
                let mut at: Vec<&str> = path.split('/').collect();
                at.pop();
                for part in target.split('/') {
                    match part {
                        "" | "." => {}
                        ".." => prop_assert!(at.pop().is_some()),
                        name => at.push(name),
                    }
                }
            }
        }
    }
}
