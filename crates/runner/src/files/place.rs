//! The working directory, and the way to what is in it: never through a link, never out of it.

use std::{cell::Cell, os::fd::OwnedFd, path::Path};

use protocol::{
    files::{Facts, FileKind, FileRefusal, WhyNot},
    path,
};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};

use super::{refusal, refuse};

/// Of directories on the way.
const DIRECTORY: Mode = Mode::from_raw_mode(0o755);
/// What leads through a directory, whether or not it may be read.
const THROUGH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// See the module.
#[derive(Debug)]
pub(super) struct Place {
    root: OwnedFd,
    /// Whether the kernel has `openat2`. gVisor's has not.
    resolves: Cell<bool>,
}

/// Where something is to be.
#[derive(Debug)]
pub(super) struct Spot<'a> {
    pub(super) parent: OwnedFd,
    pub(super) name: &'a str,
}

impl Place {
    pub(super) fn open(workspace: &Path) -> Result<Self, Errno> {
        let root = rustix::fs::open(workspace, THROUGH, Mode::empty())?;
        Ok(Self { root, resolves: Cell::new(true) })
    }

    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// The directory of that path; none is the working directory.
    pub(super) fn directory(&self, path: Option<&str>) -> Result<OwnedFd, FileRefusal> {
        let Some(path) = path else {
            return rustix::fs::openat(&self.root, ".", THROUGH, Mode::empty()).map_err(|errno| refuse(".", errno));
        };
        checked(path)?;
        self.through(path).map_err(|errno| refuse(path, errno))
    }

    /// Where `path` is, if the directories on the way are there.
    pub(super) fn spot<'a>(&self, path: &'a str) -> Result<Spot<'a>, FileRefusal> {
        checked(path)?;
        let (above, name) = match path.rsplit_once('/') {
            Some((above, name)) => (Some(above), name),
            None => (None, path),
        };
        Ok(Spot { parent: self.directory(above)?, name })
    }

    /// Where `path` is. Directories on the way are made; `made` learns how many levels of them there are to take back.
    pub(super) fn make_spot<'a>(
        &self,
        path: &'a str,
        made: &mut Vec<(OwnedFd, String)>,
    ) -> Result<Spot<'a>, FileRefusal> {
        checked(path)?;
        let mut parent = self.directory(None)?;
        let mut rest = path;
        while let Some((name, behind)) = rest.split_once('/') {
            let next = match step(&parent, name) {
                Err(Errno::NOENT) => {
                    rustix::fs::mkdirat(&parent, name, DIRECTORY).map_err(|errno| refuse(path, errno))?;
                    let next = step(&parent, name).map_err(|errno| refuse(path, errno))?;
                    made.push((parent, name.to_owned()));
                    next
                }
                next => next.map_err(|errno| refuse(path, errno))?,
            };
            (parent, rest) = (next, behind);
        }
        Ok(Spot { parent, name: rest })
    }

    /// Whether a file could be at `path`: directories on the way may be missing, nothing else may be in their place.
    pub(super) fn is_free(&self, path: &str) -> Result<(), FileRefusal> {
        let in_the_way = |path: &str| refusal(WhyNot::WrongKind, format!("{path}: is in the way"));
        match self.spot(path) {
            Ok(Spot { parent, name }) => match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if facts(&stat).kind == FileKind::Directory => Err(in_the_way(path)),
                Ok(_) | Err(Errno::NOENT) => Ok(()),
                Err(errno) => Err(refuse(path, errno)),
            },
            Err(refusal) if refusal.why == WhyNot::Absent => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }

    /// Removes a file, a link or an empty directory.
    pub(super) fn remove(&self, path: &str) -> Result<(), FileRefusal> {
        let Spot { parent, name } = self.spot(path)?;
        let removed = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).and_then(|stat| {
            let is_directory = facts(&stat).kind == FileKind::Directory;
            rustix::fs::unlinkat(&parent, name, if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() })
        });
        removed.map_err(|errno| refuse(path, errno))
    }

    /// Walks to a directory.
    fn through(&self, path: &str) -> Result<OwnedFd, Errno> {
        if self.resolves.get() {
            let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            match rustix::fs::openat2(&self.root, path, THROUGH, Mode::empty(), beneath) {
                Err(Errno::NOSYS) => self.resolves.set(false),
                done => return done,
            }
        }
        let mut at = rustix::fs::openat(&self.root, ".", THROUGH, Mode::empty())?;
        for name in path.split('/') {
            at = step(&at, name)?;
        }
        Ok(at)
    }
}

/// One level down. A link is as little a directory as a file is, whatever the kernel's word for it.
fn step(at: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let next = rustix::fs::openat(at, name, THROUGH, Mode::empty())?;
    // With O_PATH some kernels give a link itself.
    match facts(&rustix::fs::fstat(&next)?).kind {
        FileKind::Directory => Ok(next),
        FileKind::File | FileKind::Link | FileKind::Other => Err(Errno::NOTDIR),
    }
}

fn checked(path: &str) -> Result<(), FileRefusal> {
    path::check(path).map_err(|error| refusal(WhyNot::Failed, format!("{path:?} {error}")))
}

/// What a look has found.
pub(super) fn facts(stat: &Stat) -> Facts {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Link,
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice | FileType::Unknown => {
            FileKind::Other
        }
    };
    let millis = i64::try_from(stat.st_mtime_nsec / 1_000_000).unwrap_or(0);
    Facts {
        kind,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & 0o777,
        modified_ms: stat.st_mtime.saturating_mul(1000).saturating_add(millis),
    }
}

#[cfg(test)]
impl Place {
    /// As on a kernel without `openat2`.
    pub(super) fn walk(&self) {
        self.resolves.set(false);
    }
}
