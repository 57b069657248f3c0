//! Calls on files of a sandbox that lives: what the host asks, what the runner answers, and how large an answer may be.
//!
//! Everything is asked for by the host, piece by piece: the runner never sends what nobody waits for, so that a file of
//! any size holds up nothing else on the pipe. The numbers of calls and handles are the host's.

use serde::{Deserialize, Serialize};

/// Largest part of a file in one frame; see [`crate::PUT_CHUNK_BYTES`].
pub const FILE_CHUNK_BYTES: usize = crate::PUT_CHUNK_BYTES;
/// Calls that may be under way at once. With the largest write each, what they hold of the sandbox's memory is 8 MiB.
pub const MAX_FILE_CALLS: usize = 16;
/// Files that may be open at once.
pub const MAX_FILE_HANDLES: usize = 8;
/// Entries in one part of a listing.
pub const MAX_LISTED: u32 = 1000;
/// Bytes of names in one part of a listing. A part ends before the entry that would be over it, but has at least one.
pub const MAX_LISTED_BYTES: usize = 256 * 1024;
/// Bytes of one listed path: every name of it as long as file systems allow.
pub const MAX_LISTED_PATH_BYTES: usize = crate::path::MAX_DEPTH * (crate::path::MAX_NAME_BYTES + 1);
/// Entries of one directory that a listing takes. It sorts them in memory, which is the sandbox's.
pub const MAX_DIRECTORY_ENTRIES: usize = 100_000;
/// Bytes of what is said for people in a refusal.
pub const MAX_REFUSAL_BYTES: usize = 512;

/// A call. The answer has the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCall {
    /// Not that of a call under way.
    pub id: u32,
    /// What is to be done.
    pub op: FileOp,
}

/// What the host can ask for. Paths are by the rules of [`crate::path`], and no link is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileOp {
    /// Opens a regular file for reading.
    Open {
        /// Its number from now on.
        handle: u32,
        /// Which.
        path: String,
    },
    /// Reads from it. Less than was asked for is the end of the file.
    Read {
        /// Opened for reading.
        handle: u32,
        /// Where.
        offset: u64,
        /// At most [`FILE_CHUNK_BYTES`].
        bytes: u32,
    },
    /// Begins a file, under a name of its own beside the one that it is to have. Directories on the way are made.
    Create {
        /// Its number from now on.
        handle: u32,
        /// The name that it is to have.
        path: String,
        /// Permission bits, of 0o777.
        mode: u32,
        /// How large it will be, when that is known: refused at once if it does not fit.
        size: Option<u64>,
    },
    /// Adds to it.
    Write {
        /// Begun, and not whole.
        handle: u32,
        /// At most [`FILE_CHUNK_BYTES`].
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// It is whole: takes the name that it is to have, in the place of a file or link that has it.
    Commit {
        /// Begun. The number is free then, whatever comes of it.
        handle: u32,
    },
    /// Lets go of a file; of one that is not whole, nothing is left.
    Close {
        /// Open or not: a file that could not be opened is closed as well.
        handle: u32,
    },
    /// Removes a file, a link or an empty directory.
    Remove {
        /// Which.
        path: String,
    },
    /// Lists a directory, in the order of the names' bytes, part by part of a path.
    List {
        /// Which; none is the working directory.
        path: Option<String>,
        /// Whether what is in directories below follows each of them.
        recursive: bool,
        /// Goes on behind this path, as it was listed.
        after: Option<Name>,
        /// At most [`MAX_LISTED`].
        limit: u32,
    },
}

/// A path as it is in the sandbox: bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name(#[serde(with = "serde_bytes")] pub Vec<u8>);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileReply {
    /// Of which call.
    pub id: u32,
    /// What came of it.
    pub outcome: Result<FileDone, FileRefusal>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileDone {
    /// Of everything that has nothing to tell.
    Done,
    /// Of [`FileOp::Open`].
    Opened(Facts),
    /// Of [`FileOp::Read`].
    Read(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Of [`FileOp::List`].
    Listed {
        /// What is there.
        entries: Vec<Listed>,
        /// Whether there is more.
        more: bool,
    },
}

/// What is known of something in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// What it is.
    pub kind: FileKind,
    /// Apparent size in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// When it was last written, in milliseconds since 1970, as the sandbox has it.
    pub modified_ms: i64,
}

/// An entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Below the working directory.
    pub path: Name,
    /// What is known of it.
    pub facts: Facts,
}

/// What something in a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, wherever it leads.
    Link,
    /// A pipe, a socket, a device.
    Other,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRefusal {
    /// For programs.
    pub why: WhyNot,
    /// For people: which file, and what the system said. At most [`MAX_REFUSAL_BYTES`].
    pub message: String,
}

/// Why something was not done, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WhyNot {
    /// There is nothing of that name.
    Absent,
    /// It is there, and is not a regular file; or not a directory where one is needed. Links are neither.
    WrongKind,
    /// It does not fit on the session's disk.
    NoSpace,
    /// The workload has not permitted it to itself.
    Forbidden,
    /// A directory that is not empty, or has more entries than a listing takes.
    TooMany,
    /// What was begun was taken away or replaced before it was whole.
    Interfered,
    /// Anything else.
    Failed,
}

/// The answer is larger than any honest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oversized;

impl FileReply {
    /// Checks the answer's size. Whether anybody waits for it is not known here.
    pub fn check(&self) -> Result<(), Oversized> {
        let fits = match &self.outcome {
            Ok(FileDone::Done | FileDone::Opened(_)) => true,
            Ok(FileDone::Read(data)) => data.len() <= FILE_CHUNK_BYTES,
            Ok(FileDone::Listed { entries, .. }) => {
                entries.len() <= MAX_LISTED as usize
                    && entries.iter().all(|entry| entry.path.0.len() <= MAX_LISTED_PATH_BYTES)
            }
            Err(refusal) => refusal.message.len() <= MAX_REFUSAL_BYTES,
        };
        if fits { Ok(()) } else { Err(Oversized) }
    }
}

impl Name {
    /// Compares as listings are sorted: part by part, so that what is in a directory follows it.
    pub fn is_behind(&self, other: &Self) -> bool {
        self.0.split(is_slash).cmp(other.0.split(is_slash)).is_gt()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what splitting asks for")]
fn is_slash(byte: &u8) -> bool {
    *byte == b'/'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(outcome: Result<FileDone, FileRefusal>) -> Result<(), Oversized> {
        FileReply { id: 1, outcome }.check()
    }

    #[test]
    fn answers_have_bounds() {
        let facts = Facts { kind: FileKind::File, size: u64::MAX, mode: 0, modified_ms: i64::MIN };
        let listed = |path: usize| Listed { path: Name(vec![b'a'; path]), facts };
        assert_eq!(reply(Ok(FileDone::Read(vec![0; FILE_CHUNK_BYTES]))), Ok(()));
        assert_eq!(reply(Ok(FileDone::Read(vec![0; FILE_CHUNK_BYTES + 1]))), Err(Oversized));
        let many = |count| FileDone::Listed { entries: vec![listed(1); count], more: false };
        assert_eq!(reply(Ok(many(MAX_LISTED as usize))), Ok(()));
        assert_eq!(reply(Ok(many(MAX_LISTED as usize + 1))), Err(Oversized));
        let long = |path| FileDone::Listed { entries: vec![listed(path)], more: true };
        assert_eq!(reply(Ok(long(MAX_LISTED_PATH_BYTES))), Ok(()));
        assert_eq!(reply(Ok(long(MAX_LISTED_PATH_BYTES + 1))), Err(Oversized));
        let said = |bytes| FileRefusal { why: WhyNot::Failed, message: "x".repeat(bytes) };
        assert_eq!(reply(Err(said(MAX_REFUSAL_BYTES))), Ok(()));
        assert_eq!(reply(Err(said(MAX_REFUSAL_BYTES + 1))), Err(Oversized));
    }

    #[test]
    fn what_is_in_a_directory_follows_it() {
        let name = |text: &str| Name(text.as_bytes().to_vec());
        for (first, second) in [("a", "b"), ("a", "a/b"), ("a/z", "a.txt"), ("a/b/c", "a/c"), ("", "a")] {
            assert!(name(second).is_behind(&name(first)), "{first} {second}");
            assert!(!name(first).is_behind(&name(second)), "{first} {second}");
        }
        assert!(!name("a").is_behind(&name("a")));
    }
}
