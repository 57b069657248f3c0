//! Sessions whose frames this process holds: those with a driver, and finished ones for late readers.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::audit::Draft;
use tokio::sync::watch;
use wire::{OrgId, Session, SessionId, SessionResult, StreamFrame};

use crate::{
    Inner,
    driver::Backoff,
    files::Desk,
    hub::{Hub, ReplayBudget},
    terminals::Board,
    turns::Turns,
};

/// Finished sessions kept for late readers, whatever their output.
const KEPT: usize = 1000;

/// What a driver publishes about its session, after it was recorded.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) session: Arc<Session>,
    pub(crate) result: Option<Arc<SessionResult>>,
}

/// What a session has used so far of what is told as it happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    pub(crate) egress_bytes: u64,
    pub(crate) binding_calls: u64,
}

/// A session as everybody but its driver sees it.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) org: OrgId,
    pub(crate) hub: Arc<Hub>,
    pub(crate) progress: watch::Sender<Progress>,
    /// Its turns, when it is interactive.
    pub(crate) turns: Option<Arc<Turns>>,
    pub(crate) spent: watch::Sender<Spent>,
    /// Who asked for its end.
    pub(crate) cancelled_by: watch::Sender<Option<String>>,
    /// Where its files are asked for.
    pub(crate) desk: Arc<Desk>,
    /// Where its terminals are.
    pub(crate) board: Board,
}

impl Live {
    /// Records what happened beside the session's own steps, and shows it. A store that does not answer is waited for,
    /// until the server ends.
    pub(crate) async fn record(&self, inner: &Inner, session: SessionId, drafts: Vec<Draft>, what: &'static str) {
        if drafts.is_empty() {
            return;
        }
        let mut backoff = Backoff::until(&inner.deadline);
        loop {
            match inner.store.tenant(self.org).append_audit(drafts.clone()).await {
                Ok(events) => {
                    for event in events {
                        self.hub.publish(&StreamFrame::Audit(Box::new(event)));
                    }
                    return;
                }
                Err(error) => {
                    tracing::error!(%session, %error, "{what} could not be recorded");
                    if !backoff.goes_on() {
                        return;
                    }
                    backoff.wait().await;
                }
            }
        }
    }

    /// Asks for the end. The first to ask is the one who is told of.
    pub(crate) fn cancel(&self, by: String) {
        self.cancelled_by.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(by);
            }
            is_first
        });
    }

    /// Resolves when somebody asked for the end, with who did.
    pub(crate) async fn cancelled(&self) -> String {
        let mut asked = self.cancelled_by.subscribe();
        loop {
            if let Some(by) = asked.borrow_and_update().clone() {
                return by;
            }
            asked.changed().await.expect("the sender is in self");
        }
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Registry {
    held: Arc<Mutex<Held>>,
    budget: Arc<ReplayBudget>,
}

#[derive(Debug, Default)]
struct Held {
    sessions: HashMap<SessionId, Arc<Live>>,
    finished: VecDeque<SessionId>,
}

impl Registry {
    pub(crate) fn new(replay_bytes: usize) -> Self {
        let held = Arc::<Mutex<Held>>::default();
        let kept = Arc::downgrade(&held);
        let forget = move || kept.upgrade().is_some_and(|held| lock(&held).forget_oldest());
        Self { held, budget: ReplayBudget::new(replay_bytes, forget) }
    }

    /// Enters a session that is about to get its driver.
    pub(crate) fn enter(&self, session: &Session) -> Arc<Live> {
        let live = Arc::new(Live {
            org: session.org_id,
            hub: Arc::new(Hub::new(Arc::clone(&self.budget))),
            turns: session.interactive.as_ref().map(|bounds| Arc::new(Turns::new(bounds))),
            cancelled_by: watch::Sender::new(None),
            spent: watch::Sender::default(),
            desk: Arc::new(Desk::new()),
            board: Board::default(),
            progress: watch::Sender::new(Progress { session: Arc::new(session.clone()), result: None }),
        });
        self.held().sessions.insert(session.id, Arc::clone(&live));
        live
    }

    /// The session, if it is here and belongs to `org`.
    pub(crate) fn get(&self, org: OrgId, id: SessionId) -> Option<Arc<Live>> {
        self.held().sessions.get(&id).filter(|live| live.org == org).map(Arc::clone)
    }

    /// Marks a session as finished. The oldest finished ones make room.
    pub(crate) fn finish(&self, id: SessionId) {
        let mut held = self.held();
        held.finished.push_back(id);
        while held.finished.len() > KEPT || (self.budget.is_over() && held.finished.len() > 1) {
            held.forget_oldest();
        }
    }

    /// Lets go of a session that is not told to its end here: readers turn to the store.
    pub(crate) fn forget(&self, id: SessionId) {
        if let Some(live) = self.held().sessions.remove(&id) {
            live.hub.close();
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }
}

impl Held {
    /// Lets go of the session that finished first; false when none has.
    fn forget_oldest(&mut self) -> bool {
        let Some(oldest) = self.finished.pop_front() else { return false };
        if let Some(live) = self.sessions.remove(&oldest) {
            // Readers that are in the middle keep the hub, but not its weight.
            live.hub.drop_output();
        }
        true
    }
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use wire::{Chunk, FrameKind, StreamFrame};

    use super::*;

    fn session(n: u8) -> Session {
        let id = format!("01890a5d-ac96-774b-bcce-b302099a80{n:02x}");
        let session = serde_json::json!({
            "id": format!("ses_{id}"), "orgId": format!("org_{id}"), "createdBy": "dev", "phase": "running",
            "language": "python", "execMode": "oneshot", "backend": "simulator", "isolation": "simulated", "image": "",
            "limits": {"cpu": 1.0, "memoryBytes": 1, "wallClockMs": 1, "pids": 1, "diskBytes": 1, "outputBytes": 1},
            "egress": {"mode": "deny_all"}, "serviceBindings": [], "labels": {}, "args": [], "env": {},
            "createdAt": "2026-01-01T00:00:00.000Z",
            "enforcement": {"kernel": "", "egress": "", "cpu": "", "memory": "", "pids": "", "disk": "", "wallClock": ""},
        });
        serde_json::from_value(session).unwrap()
    }

    fn write(live: &Live) {
        live.hub.publish(&StreamFrame::Stdout(Chunk { text: "x".repeat(10_000), base64: None, offset: 0 }));
    }

    #[tokio::test]
    async fn finished_sessions_make_room_for_those_that_run() {
        let registry = Registry::new(4 << 20);
        let sessions: Vec<_> = (0..5).map(session).collect();
        for finished in &sessions[..4] {
            let live = registry.enter(finished);
            (0..100).for_each(|_| write(&live));
            registry.finish(finished.id);
        }
        let running = registry.enter(&sessions[4]);
        (0..80).for_each(|_| write(&running));
        let gone = sessions.iter().filter(|session| registry.get(session.org_id, session.id).is_none()).count();
        assert_eq!(gone, 1, "the oldest, and no more than it takes");
        let mut frames = running.hub.subscribe(0);
        let first = futures::StreamExt::next(&mut frames).await.unwrap();
        assert_eq!((first.seq, first.kind), (1, FrameKind::Stdout));
    }
}
