//! `files`: what is put into the working directory before the start.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use protocol::path;
use wire::{FieldError, File};

use super::shown;

/// Files of one request. The API's body limit bounds their bytes.
const MAX_FILES: usize = 256;
/// What a file gets that asks for nothing.
const DEFAULT_MODE: u32 = 0o644;
const MAX_MODE: u32 = 0o777;

/// A file, every value decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineFile {
    /// Below the working directory, by the rules of [`protocol::path`].
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What is in it.
    pub content: Vec<u8>,
}

/// A file that came beside the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// Below the working directory.
    pub path: String,
    /// How large it is.
    pub bytes: u64,
}

/// Decides on all of them; gives those that came in the request.
pub(super) fn decide(
    files: Vec<File>,
    uploaded: &[Uploaded],
    disk_bytes: u64,
    faults: &mut Vec<FieldError>,
) -> Vec<InlineFile> {
    if files.len() + uploaded.len() > MAX_FILES {
        faults.push(FieldError::new("files", format!("must have at most {MAX_FILES} entries")));
    }
    let mut seen = BTreeSet::new();
    let mut look = |path: &str| match path::check(path) {
        Err(error) => Some(error.to_string()),
        Ok(()) if !seen.insert(path.to_owned()) => Some("is given twice".to_owned()),
        Ok(()) => None,
    };
    let mut decided = Vec::with_capacity(files.len());
    for (index, file) in files.into_iter().enumerate() {
        let fault = |field: &str, message: String| FieldError::new(format!("files[{index}]{field}"), message);
        faults.extend(look(&file.path).map(|message| fault(".path", message)));
        let mode = file.mode.unwrap_or(DEFAULT_MODE);
        if mode > MAX_MODE {
            faults.push(fault(".mode", "must be permission bits, at most 511 (0o777)".to_owned()));
        }
        let content = match (file.content, file.content_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(encoded)) => STANDARD.decode(encoded).unwrap_or_else(|_| {
                faults.push(fault(".contentBase64", "must be base64, with padding".to_owned()));
                Vec::new()
            }),
            (None, None) | (Some(_), Some(_)) => {
                faults.push(fault("", "must have exactly one of content and contentBase64".to_owned()));
                Vec::new()
            }
        };
        decided.push(InlineFile { path: file.path, mode, content });
    }
    for (index, file) in uploaded.iter().enumerate() {
        faults.extend(look(&file.path).map(|message| FieldError::new(format!("file[{index}]"), message)));
    }
    for path in &seen {
        if let Some((above, _)) =
            path.match_indices('/').map(|(at, _)| path.split_at(at)).find(|(a, _)| seen.contains(*a))
        {
            let message = format!("has {} as a file and as a directory", shown(above));
            faults.push(FieldError::new("files", message));
        }
    }
    let inline = decided.iter().map(|file| file.content.len() as u64);
    let bytes: u64 = inline.chain(uploaded.iter().map(|file| file.bytes)).sum();
    if bytes > disk_bytes {
        faults.push(FieldError::new("files", format!("have {bytes} bytes, more than limits.diskBytes")));
    }
    decided
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> File {
        File { path: path.into(), content: Some("x".into()), ..File::default() }
    }

    fn faults(files: Vec<File>) -> Vec<String> {
        let mut faults = Vec::new();
        decide(files, &[], 10, &mut faults);
        faults.into_iter().map(|fault| fault.field).collect()
    }

    #[test]
    fn text_and_bytes_are_taken_with_their_mode() {
        let mut faults = Vec::new();
        let bytes = File { path: "b/c".into(), content_base64: Some("/wA=".into()), mode: Some(0o755), content: None };
        let decided = decide(vec![file("a"), bytes], &[], 3, &mut faults);
        assert_eq!(faults, []);
        assert_eq!(
            decided,
            [
                InlineFile { path: "a".into(), mode: 0o644, content: b"x".into() },
                InlineFile { path: "b/c".into(), mode: 0o755, content: vec![0xff, 0] },
            ]
        );
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let both = File { content_base64: Some(String::new()), ..file("both") };
        let none = File { content: None, ..file("none") };
        let garbled = File { content: None, content_base64: Some("???".into()), ..file("garbled") };
        let mode = File { mode: Some(0o4755), ..file("mode") };
        let told = faults(vec![file("../a"), file("/etc/x"), both, none, garbled, mode, file("mode")]);
        let expected = [
            "files[0].path",
            "files[1].path",
            "files[2]",
            "files[3]",
            "files[4].contentBase64",
            "files[5].mode",
            "files[6].path",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_file_is_no_directory_and_all_fit_on_the_disk() {
        assert_eq!(faults(vec![file("a/b/c"), file("a/b")]), ["files"]);
        assert_eq!(faults(vec![file("a"), file("ab/c"), file("a.b/c")]), [""; 0]);
        assert_eq!(faults((0..11).map(|n| file(&n.to_string())).collect()), ["files"]);
        let many = (0..=MAX_FILES).map(|n| File { content: Some(String::new()), ..file(&n.to_string()) }).collect();
        assert_eq!(faults(many), ["files"]);
    }

    #[test]
    fn what_came_beside_the_request_is_judged_with_it() {
        let beside = |path: &str, bytes| Uploaded { path: path.into(), bytes };
        let told = |uploaded: &[Uploaded]| {
            let mut faults = Vec::new();
            decide(vec![file("a")], uploaded, 10, &mut faults);
            faults.into_iter().map(|fault| fault.field).collect::<Vec<_>>()
        };
        assert_eq!(told(&[beside("b/c", 9)]), [""; 0]);
        assert_eq!(told(&[beside("b", 10)]), ["files"]);
        assert_eq!(told(&[beside("b", 1), beside("../x", 1), beside("a", 1)]), ["file[1]", "file[2]"]);
        assert_eq!(told(&[beside("a/b", 1)]), ["files"]);
    }
}
