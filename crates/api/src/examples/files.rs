//! Examples of files.

use wire::{Artifact, FileEntry, FileKind, FilePage, StoredFile};

use super::at;

/// Of `hello\n`.
const SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

pub(super) fn page() -> FilePage {
    let entry = |path: &str, kind, size, mode| FileEntry {
        path: path.into(),
        escaped: false,
        kind,
        size,
        mode,
        modified_at: at(900),
    };
    FilePage {
        items: vec![entry("out", FileKind::Directory, 60, 0o755), entry("out/greeting.txt", FileKind::File, 6, 0o644)],
        next_cursor: Some("b3V0L2dyZWV0aW5nLnR4dA".into()),
    }
}

pub(super) fn artifact() -> Artifact {
    Artifact { path: "out/greeting.txt".into(), size: 6, sha256: SHA256.into() }
}

pub(super) fn stored() -> StoredFile {
    StoredFile { path: "in/greeting.txt".into(), size: 6, sha256: SHA256.into() }
}
