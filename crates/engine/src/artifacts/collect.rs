//! Collecting: when the program has ended and nothing of it runs any more, the runner is asked for what is to be kept.
//!
//! What it says is as hostile as the program was: names are checked, sizes and numbers bounded, and each file is what came
//! of it, no more. All of it has to be done by a deadline; what is not is told.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use model::session::Glob;
use protocol::{
    files::{FILE_CHUNK_BYTES, FileDone, FileKind, FileOp, Listed, MAX_LISTED, Name, WhyNot},
    path,
};
use sha2::{Digest as _, Sha256};
use wire::{Artifact, SessionId, SkippedArtifact, SkippedBecause};

use super::{Depot, depot::Keeping};
use crate::files::{CallError, Desk};

/// Artifacts of one session.
pub(crate) const MAX_ARTIFACTS: usize = 1000;
/// Bytes of all artifacts of one session.
pub(crate) const MAX_ARTIFACT_BYTES: u64 = 1 << 30;
/// Entries of the working directory that are looked at.
const MAX_LOOKED_AT: usize = 100_000;
/// Files of which is told that they were left out; of more than that only how many.
const MAX_TOLD: usize = 50;
/// Entries that are compared with the globs before others get their turn.
const AT_ONCE: usize = 100;

/// What was collected so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    /// In the order of their paths. The content of each is in the depot, under its place in this list.
    pub(crate) artifacts: Vec<Artifact>,
    /// What was meant and left out.
    pub(crate) skipped: Vec<SkippedArtifact>,
}

/// Collects for one session.
pub(crate) struct Collector {
    pub(crate) desk: Arc<Desk>,
    pub(crate) depot: Depot,
    pub(crate) session: SessionId,
    pub(crate) globs: Vec<Glob>,
    /// The most that one file may be large.
    pub(crate) disk_bytes: u64,
    /// Filled file by file, so that what was done by the deadline is there.
    pub(crate) kept: Arc<Mutex<Kept>>,
}

/// Why a file was not kept, or nothing more is.
enum Stop {
    File(SkippedBecause),
    All(SkippedBecause),
}

impl Kept {
    pub(crate) fn skip(&mut self, path: &str, because: SkippedBecause) {
        if self.skipped.len() < MAX_TOLD {
            self.skipped.push(SkippedArtifact { path: path.to_owned(), because });
        }
    }
}

impl Collector {
    /// Collects everything. May be dropped at any time: what was kept until then is.
    pub(crate) async fn run(self) {
        if let Err(because) = self.walk().await {
            self.note(|kept| kept.skip("**", because));
        }
    }

    async fn walk(&self) -> Result<(), SkippedBecause> {
        let (mut after, mut looked_at, mut bytes) = (None::<Name>, 0, 0);
        loop {
            let list = FileOp::List { path: None, recursive: true, after: after.clone(), limit: MAX_LISTED };
            let done = self.desk.call_for_driver(list).await.map_err(|error| because(&error))?;
            let FileDone::Listed { entries, more } = done else { return Err(SkippedBecause::Unreadable) };
            let goes_on =
                entries.first().is_none_or(|first| after.as_ref().is_none_or(|after| first.path.is_behind(after)));
            looked_at += entries.len();
            if !goes_on || looked_at > MAX_LOOKED_AT {
                return Err(SkippedBecause::TooMany);
            }
            after = entries.last().map(|entry| entry.path.clone());
            for some in entries.chunks(AT_ONCE) {
                for entry in some {
                    self.consider(entry, &mut bytes).await?;
                }
                tokio::task::yield_now().await;
            }
            if !more {
                return Ok(());
            }
        }
    }

    async fn consider(
        &self,
        Listed { path: Name(name), facts }: &Listed,
        bytes: &mut u64,
    ) -> Result<(), SkippedBecause> {
        let text = String::from_utf8_lossy(name);
        if !self.globs.iter().any(|glob| glob.matches(&text)) {
            return Ok(());
        }
        let kept = match facts.kind {
            FileKind::Directory => return Ok(()),
            FileKind::Link | FileKind::Other => Err(Stop::File(SkippedBecause::NotAFile)),
            FileKind::File if str::from_utf8(name).is_err() || path::check(&text).is_err() => {
                Err(Stop::File(SkippedBecause::Name))
            }
            FileKind::File => self.keep(&text, facts.size, bytes).await,
        };
        match kept {
            Ok(()) => Ok(()),
            Err(Stop::File(because)) => {
                let shown: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
                self.note(|kept| kept.skip(&shown, because));
                Ok(())
            }
            Err(Stop::All(because)) => Err(because),
        }
    }

    async fn keep(&self, path: &str, listed: u64, bytes: &mut u64) -> Result<(), Stop> {
        let number = self.note(|kept| kept.artifacts.len());
        if number >= MAX_ARTIFACTS {
            return Err(Stop::All(SkippedBecause::TooMany));
        }
        let left = MAX_ARTIFACT_BYTES.saturating_sub(*bytes).min(self.disk_bytes);
        if listed > left {
            return Err(Stop::File(SkippedBecause::TooLarge));
        }
        let handle = self.desk.handle().await;
        let open = FileOp::Open { handle: handle.number, path: path.to_owned() };
        let FileDone::Opened(facts) = self.ask(open).await? else { return Err(Stop::File(SkippedBecause::Unreadable)) };
        if facts.size > left {
            return Err(Stop::File(SkippedBecause::TooLarge));
        }
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let mut keeping = self.depot.keep(self.session, number).await.map_err(|error| Self::lost(&error))?;
        let (mut hash, mut offset) = (Sha256::new(), 0);
        while offset < facts.size {
            let most = u32::try_from((facts.size - offset).min(FILE_CHUNK_BYTES as u64)).unwrap_or(u32::MAX);
            let read = FileOp::Read { handle: handle.number, offset, bytes: most };
            let FileDone::Read(data) = self.ask(read).await? else {
                return Err(Stop::File(SkippedBecause::Unreadable));
            };
            if data.len() != most as usize {
                return Err(Stop::File(SkippedBecause::Unreadable));
            }
            hash.update(&data);
            keeping.write(&data).await.map_err(|error| Self::lost(&error))?;
            offset += u64::from(most);
        }
        Keeping::done(keeping).await.map_err(|error| Self::lost(&error))?;
        *bytes += facts.size;
        let artifact = Artifact { path: path.to_owned(), size: facts.size, sha256: hex::encode(hash.finalize()) };
        self.note(|kept| kept.artifacts.push(artifact));
        Ok(())
    }

    async fn ask(&self, op: FileOp) -> Result<FileDone, Stop> {
        self.desk.call_for_driver(op).await.map_err(|error| match &error {
            CallError::Refused(refusal) => Stop::File(match refusal.why {
                WhyNot::WrongKind => SkippedBecause::NotAFile,
                WhyNot::Absent
                | WhyNot::NoSpace
                | WhyNot::Forbidden
                | WhyNot::TooMany
                | WhyNot::Interfered
                | WhyNot::Failed => SkippedBecause::Unreadable,
            }),
            CallError::NotRunning | CallError::Late => Stop::All(because(&error)),
        })
    }

    /// The place where artifacts are kept does not take them.
    fn lost(error: &std::io::Error) -> Stop {
        tracing::error!(%error, "an artifact could not be kept");
        Stop::All(SkippedBecause::StoreFailed)
    }

    fn note<T>(&self, what: impl FnOnce(&mut Kept) -> T) -> T {
        what(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is there by now.
pub(crate) fn taken(kept: &Mutex<Kept>) -> Kept {
    mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner))
}

fn because(error: &CallError) -> SkippedBecause {
    match error {
        CallError::NotRunning => SkippedBecause::SandboxGone,
        CallError::Late => SkippedBecause::Late,
        CallError::Refused(refusal) => match refusal.why {
            WhyNot::TooMany => SkippedBecause::TooMany,
            WhyNot::Absent
            | WhyNot::WrongKind
            | WhyNot::NoSpace
            | WhyNot::Forbidden
            | WhyNot::Interfered
            | WhyNot::Failed => SkippedBecause::Unreadable,
        },
    }
}
