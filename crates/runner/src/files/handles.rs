//! Files that are open for the host, and what becomes of each.

use std::{
    collections::HashMap,
    fs::File,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::Write as _,
    os::{fd::OwnedFd, unix::fs::FileExt as _},
};

use protocol::files::{FILE_CHUNK_BYTES, Facts, FileKind, FileRefusal, MAX_FILE_HANDLES, WhyNot};
use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};

use super::{
    place::{Place, Spot, facts},
    refusal, refuse,
};

/// How far the disk may be over the session's limit for the sake of a file: the file system's own bookkeeping, and the
/// program. Half of [`protocol::DISK_TOLERANCE_BYTES`], so that nobody is ended for what was taken here.
const BOOKKEEPING_BYTES: u64 = protocol::DISK_TOLERANCE_BYTES / 2;
/// Tries to find a name that nobody has. The workload would have to guess 64 bits for one of them to be taken.
const NAMES_TRIED: u32 = 3;

/// See the module.
#[derive(Debug)]
pub(super) struct Handles {
    place: Place,
    disk_bytes: u64,
    own_disk: bool,
    open: HashMap<u32, Handle>,
}

#[derive(Debug)]
enum Handle {
    Reading(File),
    Writing(Begun),
}

/// A file that is not whole.
#[derive(Debug)]
struct Begun {
    file: File,
    /// Its name for now, in the working directory itself.
    beside: String,
    path: String,
    bytes: u64,
}

impl Handles {
    pub(super) fn new(place: Place, disk_bytes: u64, own_disk: bool) -> Self {
        Self { place, disk_bytes, own_disk, open: HashMap::new() }
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether something in the working directory itself is a file that is not whole.
    pub(super) fn is_begun(&self, name: &[u8]) -> bool {
        self.open.values().any(|handle| match handle {
            Handle::Reading(_) => false,
            Handle::Writing(begun) => begun.beside.as_bytes() == name,
        })
    }

    pub(super) fn open(&mut self, handle: u32, path: &str) -> Result<Facts, FileRefusal> {
        self.refuse_handle(handle)?;
        let Spot { parent, name } = self.place.spot(path)?;
        // A pipe without a writer would hold up this thread for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, name, flags, Mode::empty()).map_err(|errno| refuse(path, errno))?;
        let facts = facts(&rustix::fs::fstat(&file).map_err(|errno| refuse(path, errno))?);
        if facts.kind != FileKind::File {
            return Err(refusal(WhyNot::WrongKind, format!("{path}: is no regular file")));
        }
        self.open.insert(handle, Handle::Reading(file.into()));
        Ok(facts)
    }

    pub(super) fn read(&mut self, handle: u32, offset: u64, bytes: u32) -> Result<Vec<u8>, FileRefusal> {
        let Some(Handle::Reading(file)) = self.open.get(&handle) else { return Err(not_open(handle)) };
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(FILE_CHUNK_BYTES);
        let mut data = vec![0; bytes];
        let mut filled = 0;
        while filled < bytes {
            match file.read_at(&mut data[filled..], offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(refuse("read", Errno::from_io_error(&error).unwrap_or(Errno::IO))),
            }
        }
        data.truncate(filled);
        Ok(data)
    }

    pub(super) fn create(&mut self, handle: u32, path: &str, mode: u32, size: Option<u64>) -> Result<(), FileRefusal> {
        self.refuse_handle(handle)?;
        self.place.is_free(path)?;
        let root = self.place.root();
        self.room_for(root, 0, size.unwrap_or(0)).map_err(|()| no_space(path))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode & 0o777);
        for _ in 0..NAMES_TRIED {
            let beside = format!(".enclave-{:016x}", RandomState::new().build_hasher().finish());
            match rustix::fs::openat(root, &beside, flags, Mode::from_raw_mode(0o600)) {
                Ok(file) => {
                    let begun = Begun { file: file.into(), beside, path: path.to_owned(), bytes: 0 };
                    // The mask of this process is not the caller's.
                    if let Err(errno) = rustix::fs::fchmod(&begun.file, mode) {
                        self.abandon(&begun);
                        return Err(refuse(path, errno));
                    }
                    self.open.insert(handle, Handle::Writing(begun));
                    return Ok(());
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(refuse(path, errno)),
            }
        }
        Err(refuse(path, Errno::EXIST))
    }

    pub(super) fn write(&mut self, handle: u32, data: &[u8]) -> Result<(), FileRefusal> {
        let mut begun = self.take_begun(handle)?;
        let written = self
            .room_for(&begun.file, begun.bytes, data.len() as u64)
            .map_err(|()| no_space(&begun.path))
            .and_then(|()| {
                begun
                    .file
                    .write_all(data)
                    .map_err(|error| refuse(&begun.path, Errno::from_io_error(&error).unwrap_or(Errno::IO)))
            });
        match written {
            Ok(()) => {
                begun.bytes += data.len() as u64;
                self.open.insert(handle, Handle::Writing(begun));
                Ok(())
            }
            Err(refusal) => {
                self.abandon(&begun);
                Err(refusal)
            }
        }
    }

    pub(super) fn commit(&mut self, handle: u32) -> Result<(), FileRefusal> {
        let begun = self.take_begun(handle)?;
        let mut made = Vec::new();
        let committed = self.rename(&begun, &mut made);
        if committed.is_err() {
            self.abandon(&begun);
            for (parent, name) in made.iter().rev() {
                // What is not empty is somebody else's by now.
                let _ = rustix::fs::unlinkat(parent, name.as_str(), AtFlags::REMOVEDIR);
            }
        }
        committed
    }

    pub(super) fn close(&mut self, handle: u32) {
        match self.open.remove(&handle) {
            Some(Handle::Writing(begun)) => self.abandon(&begun),
            Some(Handle::Reading(_)) | None => {}
        }
    }

    fn take_begun(&mut self, handle: u32) -> Result<Begun, FileRefusal> {
        match self.open.remove(&handle) {
            Some(Handle::Writing(begun)) => Ok(begun),
            Some(reading @ Handle::Reading(_)) => {
                self.open.insert(handle, reading);
                Err(not_open(handle))
            }
            None => Err(not_open(handle)),
        }
    }

    fn rename(&self, begun: &Begun, made: &mut Vec<(OwnedFd, String)>) -> Result<(), FileRefusal> {
        let told = |errno| refuse(&begun.path, errno);
        let root = self.place.root();
        let own = rustix::fs::fstat(&begun.file).map_err(told)?;
        let there = rustix::fs::statat(root, begun.beside.as_str(), AtFlags::SYMLINK_NOFOLLOW);
        // The workload sees it, and may do with it what it likes; that is not told as success.
        let is_own = there.is_ok_and(|there| (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino));
        if !is_own || facts(&own).size != begun.bytes {
            return Err(refusal(WhyNot::Interfered, format!("{}: was changed before it was whole", begun.path)));
        }
        let Spot { parent, name } = self.place.make_spot(&begun.path, made)?;
        rustix::fs::renameat(root, begun.beside.as_str(), &parent, name).map_err(|errno| match errno {
            Errno::EXIST | Errno::NOTEMPTY => told(Errno::ISDIR),
            errno => told(errno),
        })
    }

    fn abandon(&self, begun: &Begun) {
        // Gone already is as good.
        let _ = rustix::fs::unlinkat(self.place.root(), begun.beside.as_str(), AtFlags::empty());
    }

    /// Whether a file that has `has` bytes may have `more`.
    fn room_for(&self, on: &impl std::os::fd::AsFd, has: u64, more: u64) -> Result<(), ()> {
        if has.saturating_add(more) > self.disk_bytes {
            return Err(());
        }
        if !self.own_disk {
            return Ok(());
        }
        let of = rustix::fs::fstatvfs(on).map_err(|_| ())?;
        let used = of.f_blocks.saturating_sub(of.f_bfree).saturating_mul(of.f_frsize);
        let most = self.disk_bytes.saturating_add(BOOKKEEPING_BYTES);
        if used.saturating_add(more) > most { Err(()) } else { Ok(()) }
    }

    fn refuse_handle(&self, handle: u32) -> Result<(), FileRefusal> {
        if self.open.contains_key(&handle) || self.open.len() >= MAX_FILE_HANDLES {
            return Err(refusal(WhyNot::Failed, "more files are open than may be".to_owned()));
        }
        Ok(())
    }
}

fn no_space(path: &str) -> FileRefusal {
    refuse(path, Errno::NOSPC)
}

fn not_open(handle: u32) -> FileRefusal {
    refusal(WhyNot::Failed, format!("no file is open as {handle}"))
}
