//! Files of a session's working directory, as callers see them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;

/// What something in a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, wherever it leads. It is not followed.
    Link,
    /// A pipe, a socket or a device.
    Other,
}

/// An entry of a listing, as the sandbox tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileEntry {
    /// Path below `/workspace`.
    #[schema(example = "out/plot.png")]
    pub path: String,
    /// Whether `path` is not the name itself, which is not UTF-8, has control characters, or is longer than a path may be:
    /// bytes are shown as `\xff` then, and the entry cannot be asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub escaped: bool,
    /// What it is.
    pub kind: FileKind,
    /// Apparent size in bytes.
    pub size: u64,
    /// Unix permission bits.
    pub mode: u32,
    /// When it was last written, by the sandbox's clock.
    pub modified_at: Timestamp,
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilePage {
    /// The entries, in the order of their names' bytes; what is in a directory follows it.
    pub items: Vec<FileEntry>,
    /// Give this as `cursor` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoredFile {
    /// Path below `/workspace`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the content, hex.
    pub sha256: String,
}
