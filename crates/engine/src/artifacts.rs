//! Files that sessions left: collected when the program has ended, kept when the sandbox is gone, served, and let go of.
//!
//! Content goes to the [`Depot`] while it is collected, under numbers that nothing names yet. It counts from the
//! transaction that records the session's end, which names it; content that no record names is swept.

pub(crate) mod collect;
mod depot;

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::Stream;
use model::access::Caller;
use wire::{Artifact, ArtifactPage, SessionId, Timestamp};

pub use depot::Depot;

use crate::{ArtifactError, Engine, Inner};

/// Content that is younger than this may belong to a session whose end is not recorded yet.
const ORPHAN_AGE: Duration = Duration::from_hours(1);

/// What a deployment keeps.
#[derive(Clone, Debug)]
pub struct Keep {
    /// Where.
    pub depot: Depot,
    /// For how long.
    pub age: Duration,
    /// Bytes of one org. The oldest make room.
    pub org_bytes: u64,
}

/// An artifact that is kept.
#[derive(Clone, Debug)]
pub struct ArtifactContent {
    /// What it is.
    pub artifact: Artifact,
    depot: Depot,
    session: SessionId,
    number: u32,
}

impl Engine {
    /// What a session left and is kept.
    pub async fn artifacts(&self, caller: &Caller, id: SessionId) -> Result<ArtifactPage, ArtifactError> {
        self.session(caller, id).await?;
        let kept = self.inner.store.tenant(caller.org).artifacts(id).await?;
        Ok(ArtifactPage { items: kept.into_iter().map(|kept| kept.artifact).collect() })
    }

    /// One of them.
    pub async fn artifact(&self, caller: &Caller, id: SessionId, path: &str) -> Result<ArtifactContent, ArtifactError> {
        self.session(caller, id).await?;
        let kept = self.inner.store.tenant(caller.org).artifact(id, path).await?;
        let (Some(kept), Some(keep)) = (kept, &self.inner.config.artifacts) else { return Err(ArtifactError::Absent) };
        let depot = keep.depot.clone();
        Ok(ArtifactContent { artifact: kept.artifact, depot, session: id, number: kept.number })
    }
}

impl ArtifactContent {
    /// These bytes of it, within its size.
    pub async fn bytes(
        &self,
        range: std::ops::Range<u64>,
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + use<>, ArtifactError> {
        Ok(self.depot.read(self.session, self.number, range).await?)
    }
}

/// Lets go of what is too old or too much. Called by the reaper.
pub(crate) async fn let_go(inner: &Arc<Inner>) {
    let Some(keep) = &inner.config.artifacts else { return };
    let age = i64::try_from(keep.age.as_millis()).unwrap_or(i64::MAX);
    let before = Timestamp::from_millis(inner.clock.now().as_millis().saturating_sub(age));
    match inner.store.system().surplus_artifacts(before, keep.org_bytes).await {
        Ok(surplus) => {
            for (org, session) in surplus {
                // The record first: what nobody names is swept, what is named and not there would be a fault.
                let forgotten = inner.store.tenant(org).forget_artifacts(session).await;
                if let Err(error) = forgotten {
                    tracing::warn!(%session, %error, "old artifacts stay");
                    return;
                }
                if let Err(error) = keep.depot.remove(session).await {
                    tracing::warn!(%session, %error, "the content of old artifacts stays");
                }
                metrics::counter!("enclave_artifacts_removed_total").increment(1);
            }
        }
        Err(error) => tracing::warn!(%error, "old artifacts stay"),
    }
}

/// Removes content that no record names: a server that died between the two has left it.
pub(crate) async fn sweep(inner: &Arc<Inner>) {
    let Some(keep) = &inner.config.artifacts else { return };
    let found = match keep.depot.sessions(ORPHAN_AGE).await {
        Ok(found) => found.into_iter().collect::<HashSet<_>>(),
        Err(error) => return tracing::warn!(%error, "content that nobody names stays"),
    };
    for session in found {
        match inner.store.system().has_artifacts(session).await {
            Ok(true) => {}
            Ok(false) => {
                if let Err(error) = keep.depot.remove(session).await {
                    tracing::warn!(%session, %error, "content that nobody names stays");
                }
            }
            Err(error) => return tracing::warn!(%error, "content that nobody names stays"),
        }
    }
}
