//! Files of the working directory while the sandbox lives: the host's calls, served by a thread of its own, so that a
//! slow disk never holds up the loop.
//!
//! The thread acts as the workload's user: what it makes belongs to the program, and where it cannot go the program could
//! not either. It lives beside the workload, so its real and saved user stay ours: signals, resource limits and the count
//! of processes go by those, and the workload can do nothing to it but change its priority. It has no capability left.
//! Like the whole process it is not dumpable: no ptrace, no `/proc` of it. The names that it is given are checked, no link
//! is followed, and whatever the workload changes under its hands is at worst the workload's own doing to its own files.
//!
//! What it holds is bounded by the protocol: calls under way, open files, the parts of a listing.
//!
//! Being what the workload is, it is also what makes terminals.

mod handles;
mod list;
mod place;

use std::{
    io::PipeReader,
    os::fd::{AsFd as _, BorrowedFd},
    path::PathBuf,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use protocol::{
    files::{FileCall, FileDone, FileOp, FileRefusal, FileReply, MAX_FILE_CALLS, MAX_REFUSAL_BYTES, WhyNot},
    terminals::MAX_TERMINALS,
};
use rustix::{
    io::Errno,
    process::{Gid, Uid},
    thread::CapabilitySet,
};

use self::{handles::Handles, place::Place};
use crate::{
    interpreter::NOBODY,
    setup::{self, User},
    terminals::{self, Ground, NotOpened, Order, Pty},
};

type Outcome = Result<FileDone, FileRefusal>;

/// What there is to serve.
#[derive(Debug)]
pub(crate) struct Served {
    /// The working directory.
    pub(crate) workspace: PathBuf,
    /// Who the workload is.
    pub(crate) user: User,
    /// What its files may take, in bytes.
    pub(crate) disk_bytes: u64,
    /// Whether the file system that the directory is on has nothing else on it, so that its use is the session's.
    pub(crate) own_disk: bool,
    /// What terminals stand on.
    pub(crate) ground: Ground,
}

/// The loop's end of the thread.
#[derive(Debug)]
pub(crate) struct Clerk {
    calls: SyncSender<Call>,
    answers: Receiver<Answer>,
    /// Has one byte for each answer.
    bell: PipeReader,
}

/// What is to be done.
#[derive(Debug)]
enum Call {
    File(FileCall),
    Terminal(Order),
}

/// What was done.
#[derive(Debug)]
pub(crate) enum Answer {
    /// With files.
    File(FileReply),
    /// The terminal of this number was made, or not.
    Terminal(u32, Result<Pty, NotOpened>),
}

/// The host has more calls under way than it may have.
#[derive(Debug)]
pub(crate) struct TooManyCalls;

impl Clerk {
    /// Starts the thread.
    pub(crate) fn start(served: Served) -> std::io::Result<Self> {
        let (calls, todo) = sync_channel::<Call>(MAX_FILE_CALLS + MAX_TERMINALS);
        // One at a time: what the host does not take is not read.
        let (said, answers) = sync_channel(1);
        let (bell, ring) = std::io::pipe()?;
        let work = move || {
            let mut desk = act_as(served.user)
                .and_then(|()| Place::open(&served.workspace))
                .map(|place| Handles::new(place, served.disk_bytes, served.own_disk))
                .map_err(|errno| refuse("the working directory", errno));
            for call in todo {
                let answer = match (call, &mut desk) {
                    (Call::File(FileCall { id, op }), Ok(desk)) => {
                        Answer::File(FileReply { id, outcome: serve(desk, op) })
                    }
                    (Call::File(FileCall { id, .. }), Err(refusal)) => {
                        Answer::File(FileReply { id, outcome: Err(refusal.clone()) })
                    }
                    (Call::Terminal(Order { terminal, asked, pid }), _) => {
                        Answer::Terminal(terminal, terminals::open(&served.ground, &asked, &pid))
                    }
                };
                let told = said.send(answer).is_ok();
                if !told || rustix::io::write(&ring, &[0]) != Ok(1) {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("files".to_owned()).spawn(work)?;
        Ok(Self { calls, answers, bell })
    }

    /// Hands over a call.
    pub(crate) fn call(&self, call: FileCall) -> Result<(), TooManyCalls> {
        self.calls.try_send(Call::File(call)).map_err(|_| TooManyCalls)
    }

    /// Hands over the order for a terminal.
    pub(crate) fn open_terminal(&self, order: Order) -> Result<(), TooManyCalls> {
        self.calls.try_send(Call::Terminal(order)).map_err(|_| TooManyCalls)
    }

    /// Readable when there is an answer.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// An answer, when the bell has rung.
    pub(crate) fn answer(&self) -> Option<Answer> {
        match rustix::io::read(&self.bell, &mut [0; 1]) {
            Ok(1) => self.answers.recv().ok(),
            Ok(_) | Err(_) => None,
        }
    }
}

/// Makes this thread act as the workload's user. Raw system calls: the C library's would change every thread.
fn act_as(user: User) -> Result<(), Errno> {
    if user == User::Nobody {
        let (ours, theirs, group) = (Uid::ROOT, Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(group, group, group)?;
        rustix::thread::set_thread_res_uid(ours, theirs, ours)?;
    }
    setup::keep(CapabilitySet::empty())
}

fn serve(handles: &mut Handles, op: FileOp) -> Outcome {
    match op {
        FileOp::Open { handle, path } => handles.open(handle, &path).map(FileDone::Opened),
        FileOp::Read { handle, offset, bytes } => handles.read(handle, offset, bytes).map(FileDone::Read),
        FileOp::Create { handle, path, mode, size } => handles.create(handle, &path, mode, size).map(done),
        FileOp::Write { handle, data } => handles.write(handle, &data).map(done),
        FileOp::Commit { handle } => handles.commit(handle).map(done),
        FileOp::Close { handle } => {
            handles.close(handle);
            Ok(FileDone::Done)
        }
        FileOp::Remove { path } => handles.place().remove(&path).map(done),
        FileOp::List { path, recursive, after, limit } => {
            let wanted = list::Wanted { path: path.as_deref(), recursive, after: after.as_ref(), limit };
            list::list(handles, &wanted)
        }
    }
}

fn done((): ()) -> FileDone {
    FileDone::Done
}

/// Why the system did not do it.
fn refuse(path: &str, errno: Errno) -> FileRefusal {
    let why = match errno {
        Errno::NOENT => WhyNot::Absent,
        Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::NXIO => WhyNot::WrongKind,
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => WhyNot::NoSpace,
        Errno::ACCESS | Errno::PERM => WhyNot::Forbidden,
        Errno::NOTEMPTY | Errno::EXIST => WhyNot::TooMany,
        _ => WhyNot::Failed,
    };
    refusal(why, format!("{path}: {errno}"))
}

fn refusal(why: WhyNot, mut message: String) -> FileRefusal {
    message.truncate(message.floor_char_boundary(MAX_REFUSAL_BYTES));
    FileRefusal { why, message }
}

#[cfg(test)]
mod tests;
