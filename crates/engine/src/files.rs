//! Files of a session's working directory, while its sandbox lives: for the API.
//!
//! A call goes to the [`Desk`] of its session, through the driver and the pipe to the runner, and comes back the same way;
//! a file goes piece by piece, so that one of any size costs a few pieces of memory. What is written is written under
//! another name until it is whole, and whoever goes away in the middle leaves nothing. What a sandbox says of its files
//! is what it says: sizes and names are bounded and shown, and nothing is decided by them.

mod desk;
mod download;
mod list;
mod upload;

use std::{sync::Arc, time::Duration};

use model::{access::Caller, audit::Draft};
use protocol::{
    files::{FileDone, FileOp, FileRefusal, WhyNot},
    path,
};
use serde_json::{Value, json};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use wire::{AuditType, FieldError, SessionId};

pub(crate) use desk::{CallError, Desk, FRAMES};
pub use download::Download;
pub use list::FileFilter;
pub use upload::{Digest, Upload};

use crate::{Engine, FileError, Inner, files::desk::Handle, live::Live};

/// Files on their way in or out at once, over all sessions. Each holds up to 2 MiB of memory.
pub(crate) const MAX_TRANSFERS: usize = 32;
/// How long a transfer waits for others to end before it is told to come again.
const TURN_PATIENCE: Duration = Duration::from_secs(5);
/// After which it may.
pub(crate) const COME_AGAIN: Duration = Duration::from_secs(2);

/// A session whose files can be reached.
#[derive(Clone)]
struct Reached {
    inner: Arc<Inner>,
    live: Arc<Live>,
    session: SessionId,
    actor: String,
    disk_bytes: u64,
}

/// The right to move a file, and its number.
struct Turn {
    handle: Handle,
    _transfer: OwnedSemaphorePermit,
}

impl Engine {
    /// Removes a file, a link or an empty directory.
    pub async fn remove_file(&self, caller: &Caller, id: SessionId, path: &str) -> Result<(), FileError> {
        check(path)?;
        let reached = self.reach(caller, id).await?;
        reached.live.desk.call(FileOp::Remove { path: path.to_owned() }).await?;
        reached.record(AuditType::FileWritten, json!({ "path": path, "removed": true })).await;
        Ok(())
    }

    /// The session, if its program runs.
    async fn reach(&self, caller: &Caller, id: SessionId) -> Result<Reached, FileError> {
        let Some(live) = self.inner.registry.get(caller.org, id) else {
            let stored = self.inner.store.tenant(caller.org).session(id).await?;
            return Err(if stored.is_some() { FileError::NotRunning } else { FileError::NoSession });
        };
        if !live.desk.is_open() {
            return Err(FileError::NotRunning);
        }
        let disk_bytes = live.progress.borrow().session.limits.disk_bytes;
        let actor = caller.subject.to_string();
        Ok(Reached { inner: Arc::clone(&self.inner), live, session: id, actor, disk_bytes })
    }
}

impl Reached {
    /// Waits until a file may be moved.
    async fn turn(&self) -> Result<Turn, FileError> {
        let waiting = async {
            let transfer = Arc::clone(&self.inner.transfers).acquire_owned().await;
            let transfer = transfer.map_err(|_| FileError::NotRunning)?;
            Ok(Turn { handle: self.live.desk.handle().await, _transfer: transfer })
        };
        timeout(TURN_PATIENCE, waiting).await.unwrap_or(Err(FileError::Busy { retry_after: COME_AGAIN }))
    }

    /// Records what was done.
    async fn record(&self, kind: AuditType, data: Value) {
        let draft = Draft::platform(self.inner.clock.now(), kind, self.session, data).by(&self.actor);
        self.live.record(&self.inner, self.session, vec![draft], "an access to a file").await;
    }
}

/// Whether this may be the path of a file.
fn check(path: &str) -> Result<(), FileError> {
    path::check(path).map_err(|error| FileError::Invalid(vec![FieldError::new("path", error.to_string())]))
}

impl From<CallError> for FileError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NotRunning => Self::NotRunning,
            CallError::Late => Self::Late,
            // The sandbox's own words are for nobody but whoever debugs it.
            CallError::Refused(FileRefusal { why, message }) => {
                tracing::debug!(message = %message.escape_debug(), "a file was refused");
                match why {
                    WhyNot::Absent => Self::Absent,
                    WhyNot::WrongKind => Self::WrongKind,
                    WhyNot::NoSpace => Self::NoSpace,
                    WhyNot::Forbidden => Self::Forbidden,
                    WhyNot::TooMany => Self::TooMany,
                    WhyNot::Interfered => Self::Interfered,
                    WhyNot::Failed => Self::Failed,
                }
            }
        }
    }
}

/// An answer that the desk has checked to be of the kind that was asked for.
fn expect_done(done: &FileDone) {
    debug_assert_eq!(*done, FileDone::Done);
}
