//! The model of what serves files while a program is played: the same calls and answers as the real runner's, on
//! [`Files`].

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::{
    GuestFrame, encode,
    files::{
        FILE_CHUNK_BYTES, Facts, FileCall, FileDone, FileKind, FileOp, FileRefusal, FileReply, Listed,
        MAX_FILE_HANDLES, MAX_LISTED, Name, WhyNot,
    },
    path,
};
use tokio::io::{AsyncWriteExt, DuplexStream};

use super::{
    files::{Entry, Files},
    runner::Stop,
    sandbox::Sandbox,
};

type Outcome = Result<FileDone, FileRefusal>;

/// The host's end of the pipe, with whatever else writes to it.
pub(super) type Pipe = Arc<tokio::sync::Mutex<DuplexStream>>;

/// Does what the host asks for.
#[derive(Debug)]
pub(super) struct Clerk<'a> {
    pub(super) to_host: Pipe,
    pub(super) files: &'a Mutex<Files>,
    pub(super) sandbox: &'a Sandbox,
}

/// A file that is open for the host.
#[derive(Debug)]
pub(super) enum Handle {
    Reading(Arc<Vec<u8>>),
    Writing { path: String, mode: u32, data: Vec<u8> },
}

impl Clerk<'_> {
    /// Carries out a call, and answers it. Cancel-safe as long as the sandbox ends then.
    pub(super) async fn answer(&self, call: FileCall) -> Result<(), Stop> {
        let outcome = serve(&mut lock(self.files), self.sandbox, call.op);
        let frame = encode(&GuestFrame::File(FileReply { id: call.id, outcome }));
        let frame = frame.expect("the model's answers are within bounds");
        self.to_host.lock().await.write_all(&frame).await.map_err(|_| Stop::Gone)
    }
}

pub(super) fn lock(files: &Mutex<Files>) -> MutexGuard<'_, Files> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(files: &mut Files, sandbox: &Sandbox, op: FileOp) -> Outcome {
    match op {
        FileOp::Open { handle, path } => {
            checked(&path)?;
            number(files, handle)?;
            let content = match files.entries.get(&path) {
                Some(Entry::File { content, .. }) => Arc::clone(content),
                Some(Entry::Link) => return refuse(WhyNot::WrongKind),
                None => return refuse(if files.is_directory(&path) { WhyNot::WrongKind } else { WhyNot::Absent }),
            };
            let facts = facts(&files.entries[&path]);
            files.open.insert(handle, Handle::Reading(content));
            Ok(FileDone::Opened(facts))
        }
        FileOp::Read { handle, offset, bytes } => {
            let Some(Handle::Reading(content)) = files.open.get(&handle) else { return refuse(WhyNot::Failed) };
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
            let most = (bytes as usize).min(FILE_CHUNK_BYTES).min(content.len() - from);
            Ok(FileDone::Read(content[from..from + most].to_vec()))
        }
        FileOp::Create { handle, path, mode, size } => {
            checked(&path)?;
            number(files, handle)?;
            free(files, &path)?;
            if !sandbox.has_room(size.unwrap_or(0)) {
                return refuse(WhyNot::NoSpace);
            }
            files.open.insert(handle, Handle::Writing { path, mode: mode & 0o777, data: Vec::new() });
            Ok(FileDone::Done)
        }
        FileOp::Write { handle, data: more } => {
            let Some(Handle::Writing { data, .. }) = files.open.get_mut(&handle) else { return refuse(WhyNot::Failed) };
            if sandbox.take_room(more.len() as u64) {
                data.extend_from_slice(&more);
                return Ok(FileDone::Done);
            }
            close(files, sandbox, handle);
            refuse(WhyNot::NoSpace)
        }
        FileOp::Commit { handle } => {
            let Some(Handle::Writing { path, mode, data }) = files.open.remove(&handle) else {
                return refuse(WhyNot::Failed);
            };
            if let Err(refusal) = free(files, &path) {
                sandbox.give_room(data.len() as u64);
                return Err(refusal);
            }
            let replaced = files.entries.insert(path, Entry::File { content: Arc::new(data), mode });
            sandbox.give_room(replaced.map_or(0, |entry| entry.size()));
            Ok(FileDone::Done)
        }
        FileOp::Close { handle } => {
            close(files, sandbox, handle);
            Ok(FileDone::Done)
        }
        FileOp::Remove { path } => {
            checked(&path)?;
            if files.is_directory(&path) {
                return refuse(WhyNot::TooMany);
            }
            let Some(entry) = files.entries.remove(&path) else { return refuse(WhyNot::Absent) };
            sandbox.give_room(entry.size());
            Ok(FileDone::Done)
        }
        FileOp::List { path, recursive, after, limit } => {
            list(files, path.as_deref(), recursive, after.as_ref(), limit)
        }
    }
}

fn close(files: &mut Files, sandbox: &Sandbox, handle: u32) {
    if let Some(Handle::Writing { data, .. }) = files.open.remove(&handle) {
        sandbox.give_room(data.len() as u64);
    }
}

fn list(files: &Files, path: Option<&str>, recursive: bool, after: Option<&Name>, limit: u32) -> Outcome {
    let prefix = match path {
        Some(path) => {
            checked(path)?;
            if !files.is_directory(path) {
                return refuse(if files.entries.contains_key(path) { WhyNot::WrongKind } else { WhyNot::Absent });
            }
            format!("{path}/")
        }
        None => String::new(),
    };
    let mut found = BTreeSet::<Vec<&str>>::new();
    for path in files.entries.keys().filter(|path| path.starts_with(&prefix)) {
        let parts: Vec<_> = path.split('/').collect();
        let above = prefix.matches('/').count();
        let deepest = if recursive { parts.len() } else { above + 1 };
        found.extend((above + 1..=deepest).map(|depth| parts[..depth].to_vec()));
    }
    let behind = |name: &Name| after.is_none_or(|after| name.is_behind(after));
    let mut entries = found.into_iter().map(|parts| parts.join("/")).filter_map(|path| {
        let facts = files.entries.get(&path).map_or(DIRECTORY, facts);
        let path = Name(path.into_bytes());
        behind(&path).then_some(Listed { path, facts })
    });
    let entries_shown: Vec<_> = entries.by_ref().take(limit.min(MAX_LISTED) as usize).collect();
    let more = entries.next().is_some() && !entries_shown.is_empty();
    Ok(FileDone::Listed { entries: entries_shown, more })
}

const DIRECTORY: Facts = Facts { kind: FileKind::Directory, size: 0, mode: 0o755, modified_ms: 0 };

fn facts(entry: &Entry) -> Facts {
    let (kind, mode) = match entry {
        Entry::File { mode, .. } => (FileKind::File, *mode),
        Entry::Link => (FileKind::Link, 0o777),
    };
    Facts { kind, size: entry.size(), mode, modified_ms: 0 }
}

fn number(files: &Files, handle: u32) -> Result<(), FileRefusal> {
    if files.open.contains_key(&handle) || files.open.len() >= MAX_FILE_HANDLES {
        return Err(refusal(WhyNot::Failed));
    }
    Ok(())
}

/// Whether a file could be there.
fn free(files: &Files, path: &str) -> Result<(), FileRefusal> {
    if files.takes_file(path) { Ok(()) } else { Err(refusal(WhyNot::WrongKind)) }
}

fn checked(path: &str) -> Result<(), FileRefusal> {
    path::check(path).map_err(|_| refusal(WhyNot::Failed))
}

fn refuse(why: WhyNot) -> Outcome {
    Err(refusal(why))
}

fn refusal(why: WhyNot) -> FileRefusal {
    FileRefusal { why, message: String::new() }
}
