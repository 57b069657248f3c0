//! Sessions whose frames this process holds: those with a driver, and finished ones for late readers.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use wire::{OrgId, Session, SessionId, SessionResult};

use crate::hub::{Hub, ReplayBudget};

/// Finished sessions kept for late readers, whatever their output.
const KEPT: usize = 1000;

/// What a driver publishes about its session, after it was recorded.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) session: Arc<Session>,
    pub(crate) result: Option<Arc<SessionResult>>,
}

/// A session as everybody but its driver sees it.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) org: OrgId,
    pub(crate) hub: Arc<Hub>,
    pub(crate) progress: watch::Sender<Progress>,
    /// Who asked for its end.
    pub(crate) cancelled_by: watch::Sender<Option<String>>,
}

impl Live {
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
    state: Mutex<Held>,
    budget: Arc<ReplayBudget>,
}

#[derive(Debug, Default)]
struct Held {
    sessions: HashMap<SessionId, Arc<Live>>,
    finished: VecDeque<SessionId>,
}

impl Registry {
    pub(crate) fn new(replay_bytes: usize) -> Self {
        Self { state: Mutex::default(), budget: ReplayBudget::new(replay_bytes) }
    }

    /// Enters a session that is about to get its driver.
    pub(crate) fn enter(&self, session: &Session) -> Arc<Live> {
        let live = Arc::new(Live {
            org: session.org_id,
            hub: Arc::new(Hub::new(Arc::clone(&self.budget))),
            cancelled_by: watch::Sender::new(None),
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
            let Some(oldest) = held.finished.pop_front() else { break };
            if let Some(live) = held.sessions.remove(&oldest) {
                // Readers that are in the middle keep the hub, but not its weight.
                live.hub.drop_output();
            }
        }
    }

    /// Lets go of a session that is not told to its end here: readers turn to the store.
    pub(crate) fn forget(&self, id: SessionId) {
        if let Some(live) = self.held().sessions.remove(&id) {
            live.hub.close();
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
