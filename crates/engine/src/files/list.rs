//! Listings: entries as a sandbox tells them, and how a name is shown that no path can have.

use std::fmt::Write as _;

use model::access::Caller;
use protocol::{
    files::{FileDone, FileKind, FileOp, Listed, MAX_LISTED, Name},
    path,
};
use wire::{FileEntry, FilePage, SessionId, Timestamp};

use super::check;
use crate::{Engine, FileError};

/// What is to be listed.
#[derive(Clone, Debug, Default)]
pub struct FileFilter {
    /// A directory; the working directory when absent.
    pub path: Option<String>,
    /// With everything below.
    pub recursive: bool,
    /// Behind this, the path of an entry as it is in the sandbox.
    pub after: Option<Vec<u8>>,
    /// How many at most; the caller bounds it.
    pub limit: u32,
}

impl Engine {
    /// What is in a directory; and what to go on behind, if there is more.
    pub async fn files(
        &self,
        caller: &Caller,
        id: SessionId,
        filter: FileFilter,
    ) -> Result<(FilePage, Option<Vec<u8>>), FileError> {
        if let Some(path) = &filter.path {
            check(path)?;
        }
        let reached = self.reach(caller, id).await?;
        let mut after = filter.after.map(Name);
        let mut items = Vec::new();
        loop {
            let left = filter.limit.saturating_sub(u32::try_from(items.len()).unwrap_or(u32::MAX));
            let list = FileOp::List {
                path: filter.path.clone(),
                recursive: filter.recursive,
                after: after.clone(),
                limit: left.min(MAX_LISTED),
            };
            let FileDone::Listed { entries, more } = reached.live.desk.call(list).await? else {
                return Err(FileError::Failed);
            };
            // Otherwise a listing could go round in circles.
            let goes_on =
                entries.first().is_none_or(|first| after.as_ref().is_none_or(|after| first.path.is_behind(after)));
            if !goes_on {
                return Err(FileError::Failed);
            }
            after = entries.last().map(|entry| entry.path.clone()).or(after);
            items.extend(entries.into_iter().map(show));
            if !more || items.len() >= filter.limit as usize {
                let next = after.filter(|_| more).map(|Name(bytes)| bytes);
                return Ok((FilePage { items, next_cursor: None }, next));
            }
        }
    }
}

fn show(listed: Listed) -> FileEntry {
    let Listed { path: Name(bytes), facts } = listed;
    let (path, escaped) = match String::from_utf8(bytes) {
        Ok(text) if path::check(&text).is_ok() => (text, false),
        Ok(text) => (escape(text.as_bytes()), true),
        Err(error) => (escape(error.as_bytes()), true),
    };
    FileEntry {
        path,
        escaped,
        kind: match facts.kind {
            FileKind::File => wire::FileKind::File,
            FileKind::Directory => wire::FileKind::Directory,
            FileKind::Link => wire::FileKind::Link,
            FileKind::Other => wire::FileKind::Other,
        },
        size: facts.size,
        mode: facts.mode & 0o777,
        modified_at: Timestamp::from_millis(facts.modified_ms),
    }
}

/// Bytes as text: what is no character, or one that does something to who reads it, as `\xff`.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if char.is_control() || char == '\\' {
                let mut buffer = [0; 4];
                char.encode_utf8(&mut buffer).bytes().for_each(|byte| hex(&mut text, byte));
            } else {
                text.push(char);
            }
        }
        chunk.invalid().iter().for_each(|byte| hex(&mut text, *byte));
    }
    text
}

fn hex(text: &mut String, byte: u8) {
    let _ = write!(text, "\\x{byte:02x}");
}

#[cfg(test)]
mod tests {
    use protocol::files::Facts;

    use super::*;

    #[test]
    fn names_that_no_path_can_have_are_shown_escaped_and_marked() {
        let shown = |bytes: &[u8]| {
            let facts = Facts { kind: FileKind::File, size: 1, mode: 0o100_644, modified_ms: i64::MAX };
            let entry = show(Listed { path: Name(bytes.to_vec()), facts });
            assert_eq!(entry.mode, 0o644);
            (entry.path, entry.escaped)
        };
        assert_eq!(shown("ä/b c".as_bytes()), ("ä/b c".into(), false));
        assert_eq!(shown(b"a\nb"), ("a\\x0ab".into(), true));
        assert_eq!(shown(b"\xff\\x\xc3"), ("\\xff\\x5cx\\xc3".into(), true));
        assert_eq!(shown(b"a\\b"), ("a\\b".into(), false));
        assert_eq!(shown(b"../x"), ("../x".into(), true));
        assert_eq!(shown("\u{85}".as_bytes()), ("\\xc2\\x85".into(), true));
    }
}
