//! What is put into the working directory before the program starts.
//!
//! Names are hostile, and so may be what an earlier one has put in the way: every path is walked component by component,
//! no link is followed, nothing is replaced. It is done as the workload's user, by a thread that becomes that user for
//! good and ends before the program starts: what it makes belongs to the program, and where it cannot go the program
//! could not either. (`setfsuid`, which would need no thread, is not there in gVisor.)

use std::{
    fs::File,
    io::Write as _,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
};

use protocol::{NotPut, PUT_CHUNK_BYTES, Put, PutKind, path};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags},
    io::Errno,
    process::{Gid, Uid},
};

use crate::{interpreter::NOBODY, setup::User};

/// Of directories on the way.
const DIRECTORY: Mode = Mode::from_raw_mode(0o755);

/// Why something was not put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) reason: NotPut,
    pub(crate) message: String,
}

impl Refused {
    fn failed(message: impl Into<String>) -> Self {
        Self { reason: NotPut::Failed, message: message.into() }
    }

    fn system(path: &str, errno: Errno) -> Self {
        let reason = match errno {
            Errno::NOSPC | Errno::DQUOT => NotPut::NoSpace,
            Errno::EXIST | Errno::LOOP | Errno::NOTDIR | Errno::ISDIR => NotPut::InTheWay,
            _ => NotPut::Failed,
        };
        Self { reason, message: format!("{path}: {errno}") }
    }
}

/// Hands everything to a thread, and waits for it.
#[derive(Debug)]
pub(crate) struct Putter {
    jobs: SyncSender<Put>,
    done: Receiver<Result<(), Refused>>,
    thread: JoinHandle<()>,
    /// Whether a file is not whole yet.
    unfinished: bool,
}

impl Putter {
    /// Starts the thread.
    pub(crate) fn start(root: &Path, user: User) -> Result<Self, Refused> {
        let (jobs, todo) = sync_channel::<Put>(0);
        let (said, done) = sync_channel(0);
        let root = root.to_owned();
        let work = move || {
            let mut writer = become_user(user).map(|()| Writer { root, current: None });
            for put in todo {
                let outcome = match &mut writer {
                    Ok(writer) => writer.put(&put),
                    Err(refused) => Err(refused.clone()),
                };
                if said.send(outcome).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("put".to_owned()).spawn(work);
        let thread = thread.map_err(|error| Refused::failed(format!("starting a thread: {error}")))?;
        Ok(Self { jobs, done, thread, unfinished: false })
    }

    /// Puts a part.
    pub(crate) fn put(&mut self, put: Put) -> Result<(), Refused> {
        let gone = || Refused::failed("the thread that puts files has ended");
        self.unfinished = !put.last;
        self.jobs.send(put).map_err(|_| gone())?;
        self.done.recv().map_err(|_| gone())?
    }

    /// Ends the thread. Nothing of it is left when the program starts.
    pub(crate) fn finish(self) -> Result<(), Refused> {
        drop(self.jobs);
        self.thread.join().map_err(|_| Refused::failed("the thread that puts files panicked"))?;
        if self.unfinished { Err(Refused::failed("a file is not whole")) } else { Ok(()) }
    }
}

/// Makes this thread the workload's user. Raw system calls: the C library's would change every thread.
fn become_user(user: User) -> Result<(), Refused> {
    if user == User::Same {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    rustix::thread::set_thread_groups(&[])
        .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
        .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid))
        .map_err(|errno| Refused::failed(format!("becoming the workload's user: {errno}")))
}

#[derive(Debug)]
struct Writer {
    root: PathBuf,
    /// The file that is not whole yet.
    current: Option<(String, File)>,
}

impl Writer {
    fn put(&mut self, put: &Put) -> Result<(), Refused> {
        if put.data.len() > PUT_CHUNK_BYTES {
            return Err(Refused::failed("a part of a file is too large"));
        }
        let (path, mut file) = match self.current.take() {
            Some((path, file)) if path == put.path => (path, file),
            Some(_) => return Err(Refused::failed("a file is not whole")),
            None => {
                path::check(&put.path).map_err(|error| Refused::failed(format!("{:?} {error}", put.path)))?;
                let (parent, name) = self.parent(&put.path)?;
                match put.kind {
                    PutKind::File { mode } => (put.path.clone(), create(&parent, name, mode, &put.path)?),
                    PutKind::Link => return link(&parent, name, put),
                }
            }
        };
        file.write_all(&put.data)
            .map_err(|error| Refused::system(&path, Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        if !put.last {
            self.current = Some((path, file));
        }
        Ok(())
    }

    /// Opens the directory that something is to be in, making what is missing.
    fn parent<'a>(&self, path: &'a str) -> Result<(OwnedFd, &'a str), Refused> {
        let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let told = |errno| Refused::system(path, errno);
        let mut at = rustix::fs::open(&self.root, directory, Mode::empty()).map_err(told)?;
        let mut rest = path;
        while let Some((name, behind)) = rest.split_once('/') {
            let made = match rustix::fs::mkdirat(&at, name, DIRECTORY) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(errno) => Err(errno),
            };
            let opened = made.and_then(|()| rustix::fs::openat(&at, name, directory, Mode::empty()));
            at = opened.map_err(|errno| {
                // Kernels have different words for a link where a directory has to be.
                let of = rustix::fs::statat(&at, name, AtFlags::SYMLINK_NOFOLLOW);
                let blocked = of.is_ok_and(|of| FileType::from_raw_mode(of.st_mode) != FileType::Directory);
                if blocked { told(Errno::NOTDIR) } else { told(errno) }
            })?;
            rest = behind;
        }
        Ok((at, rest))
    }
}

fn create(parent: &OwnedFd, name: &str, mode: u32, path: &str) -> Result<File, Refused> {
    let mode = Mode::from_raw_mode(mode & 0o777);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(parent, name, flags, mode).map_err(|errno| Refused::system(path, errno))?;
    // The mask of this process is not the caller's.
    rustix::fs::fchmod(file.as_fd(), mode).map_err(|errno| Refused::system(path, errno))?;
    Ok(file.into())
}

fn link(parent: &OwnedFd, name: &str, put: &Put) -> Result<(), Refused> {
    let target = std::str::from_utf8(&put.data).ok().filter(|target| path::link_stays_inside(&put.path, target));
    let Some(target) = target.filter(|_| put.last) else {
        return Err(Refused::failed(format!("{:?} is a link that leads out", put.path)));
    };
    let told = |errno| Refused::system(&put.path, errno);
    // Some file systems would follow a link that is there; this one must not even be there.
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => rustix::fs::symlinkat(target, parent, name).map_err(told),
        Ok(_) => Err(told(Errno::EXIST)),
        Err(errno) => Err(told(errno)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn file(path: &str, data: &[u8]) -> Put {
        Put { path: path.into(), kind: PutKind::File { mode: 0o640 }, data: data.into(), last: true }
    }

    fn place() -> (tempfile::TempDir, Putter) {
        let dir = tempfile::tempdir().expect("creates");
        let putter = Putter::start(dir.path(), User::Same).expect("starts");
        (dir, putter)
    }

    fn reason(outcome: Result<(), Refused>) -> NotPut {
        outcome.expect_err("refused").reason
    }

    #[test]
    fn files_come_with_their_directories_mode_and_parts() {
        let (dir, mut putter) = place();
        putter.put(Put { last: false, ..file("a/b/c.txt", b"one ") }).expect("put");
        putter.put(Put { last: false, ..file("a/b/c.txt", b"") }).expect("put");
        putter.put(file("a/b/c.txt", b"two")).expect("put");
        putter.put(Put { kind: PutKind::File { mode: 0o4777 }, ..file("a/tool", b"") }).expect("put");
        putter.put(Put { kind: PutKind::Link, ..file("a/link", b"b/c.txt") }).expect("put");
        putter.finish().expect("whole");
        let mode = |path: &str| std::fs::metadata(dir.path().join(path)).expect("there").permissions().mode() & 0o7777;
        assert_eq!(std::fs::read(dir.path().join("a/link")).expect("reads"), b"one two");
        assert_eq!((mode("a/b/c.txt"), mode("a/tool")), (0o640, 0o777));
    }

    #[test]
    fn nothing_is_put_outside_replaced_or_through_a_link() {
        let (dir, mut putter) = place();
        let outside = tempfile::tempdir().expect("creates");
        symlink(outside.path(), dir.path().join("out")).expect("links");
        symlink(outside.path().join("new"), dir.path().join("dangling")).expect("links");
        std::fs::write(dir.path().join("there"), "kept").expect("writes");
        for path in ["../x", "/etc/x", "a/../../x", "", "a\0b", "a//b"] {
            assert_eq!(reason(putter.put(file(path, b"x"))), NotPut::Failed, "{path:?}");
        }
        for path in ["out/x", "out", "dangling", "there", "there/x"] {
            assert_eq!(reason(putter.put(file(path, b"x"))), NotPut::InTheWay, "{path}");
        }
        for target in ["/etc/shadow", "../x", "", "a\0b", "\u{7f}"] {
            let put = Put { kind: PutKind::Link, ..file("link", target.as_bytes()) };
            assert_eq!(reason(putter.put(put)), NotPut::Failed, "{target:?}");
        }
        assert_eq!(reason(putter.put(Put { kind: PutKind::Link, ..file("there", b"x") })), NotPut::InTheWay);
        assert_eq!(std::fs::read_dir(outside.path()).expect("lists").count(), 0);
        assert_eq!(std::fs::read(dir.path().join("there")).expect("reads"), b"kept");
    }

    #[test]
    fn parts_of_two_files_do_not_mix() {
        let (_dir, mut putter) = place();
        putter.put(Put { last: false, ..file("a", b"x") }).expect("put");
        assert_eq!(reason(putter.put(file("b", b"x"))), NotPut::Failed);
        let (_dir, mut putter) = place();
        putter.put(Put { last: false, ..file("a", b"x") }).expect("put");
        assert_eq!(reason(putter.finish()), NotPut::Failed);
    }
}
