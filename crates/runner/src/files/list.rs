//! Listing, part by part, in an order that does not depend on the file system: a part goes on behind the last entry of
//! the one before, whatever has changed in between.

use std::{
    ffi::OsStr,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
};

use protocol::{
    files::{
        FileDone, FileKind, FileRefusal, Listed, MAX_DIRECTORY_ENTRIES, MAX_LISTED, MAX_LISTED_BYTES, Name, WhyNot,
    },
    path::MAX_DEPTH,
};
use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags},
    io::Errno,
};

use super::{handles::Handles, place::facts, refusal, refuse};

const READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What is to be listed.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) path: Option<&'a str>,
    pub(super) recursive: bool,
    pub(super) after: Option<&'a Name>,
    pub(super) limit: u32,
}

/// Lists.
pub(super) fn list(handles: &Handles, wanted: &Wanted<'_>) -> Result<FileDone, FileRefusal> {
    let shown = wanted.path.unwrap_or(".");
    let through = handles.place().directory(wanted.path)?;
    let directory = read(&through, b".").map_err(|errno| refuse(shown, errno))?;
    let prefix = wanted.path.map_or(Vec::new(), |path| [path.as_bytes(), b"/"].concat());
    let after = match wanted.after {
        Some(after) => after.0.strip_prefix(&*prefix).ok_or_else(|| refuse(shown, Errno::INVAL))?,
        None => &[],
    };
    let depth = wanted.path.map_or(0, |path| path.split('/').count());
    let limit = usize::try_from(wanted.limit.min(MAX_LISTED)).unwrap_or(usize::MAX);
    let mut listing =
        Listing { handles, recursive: wanted.recursive, limit, bytes: 0, held: 0, entries: Vec::new(), more: false };
    listing.directory(&directory, &prefix, after, depth).map_err(|stop| match stop {
        Stop::System(errno) => refuse(shown, errno),
        Stop::TooMany => {
            refusal(WhyNot::TooMany, format!("{shown}: more than {MAX_DIRECTORY_ENTRIES} entries to be sorted"))
        }
    })?;
    Ok(FileDone::Listed { entries: listing.entries, more: listing.more })
}

enum Stop {
    System(Errno),
    TooMany,
}

struct Listing<'a> {
    handles: &'a Handles,
    recursive: bool,
    limit: usize,
    bytes: usize,
    /// Names that are held in memory, of all the directories on the way.
    held: usize,
    entries: Vec<Listed>,
    more: bool,
}

impl Listing<'_> {
    /// Lists what is behind `after` in a directory whose entries begin with `prefix`.
    fn directory(&mut self, directory: &OwnedFd, prefix: &[u8], after: &[u8], depth: usize) -> Result<(), Stop> {
        let names = self.names(directory, depth)?;
        let held = names.len();
        let mut split = after.splitn(2, |byte| *byte == b'/');
        let (first, rest) = (split.next().unwrap_or_default(), split.next().unwrap_or_default());
        for name in names.into_iter().filter(|name| name.as_slice() >= first) {
            // The one that the part before ended with, or in.
            let is_known = name == first;
            let Ok(stat) = rustix::fs::statat(directory, OsStr::from_bytes(&name), AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let facts = facts(&stat);
            let path = [prefix, &name].concat();
            if !is_known && !self.take(&path, facts) {
                return Ok(());
            }
            if self.recursive && facts.kind == FileKind::Directory && depth + 1 < MAX_DEPTH {
                // Without permission to read it there is nothing to be listed of it.
                if let Ok(below) = read(directory, &name) {
                    let prefix = [&*path, b"/"].concat();
                    self.directory(&below, &prefix, if is_known { rest } else { &[] }, depth + 1)?;
                    if self.more {
                        return Ok(());
                    }
                }
            }
        }
        self.held -= held;
        Ok(())
    }

    /// Whether there was room for it.
    fn take(&mut self, path: &[u8], facts: protocol::files::Facts) -> bool {
        let full = self.entries.len() >= self.limit || self.bytes + path.len() > MAX_LISTED_BYTES;
        if full && !self.entries.is_empty() {
            self.more = true;
            return false;
        }
        self.bytes += path.len();
        self.entries.push(Listed { path: Name(path.to_vec()), facts });
        true
    }

    /// The names in a directory, sorted.
    fn names(&mut self, directory: &OwnedFd, depth: usize) -> Result<Vec<Vec<u8>>, Stop> {
        let mut names = Vec::new();
        for entry in Dir::read_from(directory).map_err(Stop::System)? {
            let entry = entry.map_err(Stop::System)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." || (depth == 0 && self.handles.is_begun(name)) {
                continue;
            }
            if self.held >= MAX_DIRECTORY_ENTRIES {
                return Err(Stop::TooMany);
            }
            self.held += 1;
            names.push(name.to_vec());
        }
        names.sort_unstable();
        // What is moved about while it is read may come twice, and is told once.
        let read = names.len();
        names.dedup();
        self.held -= read - names.len();
        Ok(names)
    }
}

fn read(at: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(at, OsStr::from_bytes(name), READ, Mode::empty())
}
