//! Recovery: what an earlier process left is ended, told truthfully, and reclaimed before the first new session.
//!
//! A session counts as torn down when its own backend no longer lists its sandbox. One whose sandbox cannot be removed
//! yet, or whose backend is not here, stays visibly reclaiming; the reaper goes on with the former.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use backend::SandboxId;
use model::{
    audit::Draft,
    phase::{Event, State, Verdict},
};
use store::{StoreError, TurnRecord, Unfinished, Update, UpdateError};
use wire::{AuditType, FaultCode, Session, SessionResult, Timestamp, TurnStatus, Usage};

use crate::{Inner, StartError, output::Tails, reaper, view, webhooks};

/// A session that has ended, and of whose sandbox something still stands.
pub(crate) struct Owed {
    session: Session,
    /// Its sandbox; when its name was never recorded, everything that may be it.
    sandboxes: Arc<HashSet<SandboxId>>,
}

impl Owed {
    /// Whether this sandbox has to be gone first.
    pub(crate) fn waits_for(&self, id: &SandboxId) -> bool {
        self.sandboxes.contains(id)
    }
}

/// What each backend still has.
type Standing = HashMap<&'static str, HashSet<SandboxId>>;

/// Ends every session that an earlier process did not, and removes every sandbox that it left. Gives the sessions that are
/// not torn down yet.
pub(crate) async fn recover(inner: &Inner) -> Result<Vec<Owed>, StartError> {
    let mut standing = Standing::new();
    for backend in &inner.backends {
        let name = backend.capabilities().name;
        let left = inner.list(backend.as_ref()).await.map_err(|source| StartError::Recovery { name, source })?;
        if !left.is_empty() {
            tracing::warn!(backend = name, sandboxes = left.len(), "an earlier process left sandboxes; removing them");
        }
        standing.insert(name, left.into_iter().collect());
    }
    reaper::sweep_all(inner).await;
    for backend in &inner.backends {
        // One that does not answer now may still have all that it had.
        if let Ok(left) = inner.list(backend.as_ref()).await {
            standing.insert(backend.capabilities().name, left.into_iter().collect());
        }
    }
    let unfinished = inner.store.system().unfinished().await?;
    if !unfinished.is_empty() {
        tracing::warn!(sessions = unfinished.len(), "an earlier process left sessions; ending them");
    }
    let nameless = nameless(&standing, &unfinished);
    let mut owed = Vec::new();
    for Unfinished { session, sandbox, webhook_url } in unfinished {
        let left = standing.get(session.backend.as_str()).map(|standing| match sandbox {
            Some(name) => Arc::new(name.parse().ok().filter(|id| standing.contains(id)).into_iter().collect()),
            None => nameless.get(session.backend.as_str()).map(Arc::clone).unwrap_or_default(),
        });
        let is_gone = left.as_ref().is_some_and(|left| left.is_empty());
        let session = end(inner, session, webhook_url.as_deref(), is_gone).await?;
        match left {
            Some(sandboxes) if !is_gone => owed.push(Owed { session, sandboxes }),
            Some(_) => {}
            None => {
                let (id, backend) = (session.id, &session.backend);
                tracing::warn!(session = %id, backend, "its backend is not here; it is torn down when it comes back");
            }
        }
    }
    Ok(owed)
}

/// What stands on each backend and is no session's by name. A sandbox is recorded with the start of its program, so one
/// that was booting may be any session's that has none.
fn nameless(standing: &Standing, unfinished: &[Unfinished]) -> HashMap<&'static str, Arc<HashSet<SandboxId>>> {
    let named: HashSet<&str> = unfinished.iter().filter_map(|unfinished| unfinished.sandbox.as_deref()).collect();
    let of = |ids: &HashSet<SandboxId>| ids.iter().filter(|id| !named.contains(id.as_str())).cloned().collect();
    standing.iter().map(|(name, ids)| (*name, Arc::new(of(ids)))).collect()
}

/// Records as torn down what is owed on a backend and no longer listed by it. Gives what is still owed.
pub(crate) async fn settle(inner: &Inner, owed: Vec<Owed>, backend: &str, listed: &[SandboxId]) -> Vec<Owed> {
    let stands = |owed: &Owed| owed.session.backend != backend || listed.iter().any(|id| owed.waits_for(id));
    let (mut owed, gone): (Vec<_>, Vec<_>) = owed.into_iter().partition(stands);
    for one in gone {
        let mut session = one.session.clone();
        let mut drafts = Vec::new();
        step(view::state_of(&session), &mut session, Event::Reclaimed, inner.clock.now(), &mut drafts);
        if let Err(error) = write(inner, &session, None, None, drafts).await {
            tracing::warn!(session = %session.id, %error, "torn down, and not recorded yet");
            owed.push(one);
        }
    }
    owed
}

/// Ends a session, if that has not been recorded, and records it as torn down if nothing is left of it.
async fn end(
    inner: &Inner,
    mut session: Session,
    webhook_url: Option<&str>,
    is_gone: bool,
) -> Result<Session, StoreError> {
    let now = inner.clock.now();
    let mut state = view::state_of(&session);
    let (mut drafts, mut result) = (Vec::new(), None);
    if !matches!(state, State::Ended { .. }) {
        abort_turns(inner, &session, now).await?;
        let detail = "the server was restarted while the session was under way; its output is lost";
        let verdict = Verdict::Faulted(view::fault(FaultCode::ServerRestarted, detail));
        result = Some(view::result(&session, &verdict, Usage::default(), None, Tails::default(), Vec::new()));
        state = step(state, &mut session, Event::Ended(verdict), now, &mut drafts);
        let data = serde_json::json!({ "bytes": 0 });
        drafts.push(Draft::platform(now, AuditType::ResultCollected, session.id, data));
    }
    if is_gone {
        step(state, &mut session, Event::Reclaimed, now, &mut drafts);
    }
    write(inner, &session, webhook_url, result, drafts).await?;
    Ok(session)
}

/// Ends the turns that were under way or waited. Before the session's own end: a start that is cut off here finds them
/// again.
async fn abort_turns(inner: &Inner, session: &Session, now: Timestamp) -> Result<(), StoreError> {
    if session.interactive.is_none() {
        return Ok(());
    }
    let tenant = inner.store.tenant(session.org_id);
    for mut turn in tenant.open_turns(session.id).await? {
        (turn.status, turn.finished_at) = (TurnStatus::Aborted, Some(now));
        let data = serde_json::json!({ "number": turn.number, "status": turn.status });
        let ran = turn.started_at.map(|_| Draft::platform(now, AuditType::TurnCompleted, session.id, data));
        match tenant.record_turn(TurnRecord { turn, drafts: ran.into_iter().collect() }).await {
            Ok(_) | Err(UpdateError::NotLive(_)) => {}
            Err(UpdateError::Store(error)) => return Err(error),
        }
    }
    Ok(())
}

fn step(state: State, session: &mut Session, event: Event, now: Timestamp, drafts: &mut Vec<Draft>) -> State {
    let (state, draft) =
        state.apply(session.id, event, now).expect("a state that is read back takes its end, then its reclaim");
    drafts.push(draft);
    view::show(&state, session);
    state
}

async fn write(
    inner: &Inner,
    session: &Session,
    webhook_url: Option<&str>,
    result: Option<SessionResult>,
    drafts: Vec<Draft>,
) -> Result<(), StoreError> {
    if drafts.is_empty() {
        return Ok(());
    }
    let outbox = result.iter().filter_map(|result| webhooks::finished(inner, webhook_url, session, result)).collect();
    let update = Update { session: session.clone(), sandbox: None, result, drafts, outbox, artifacts: Vec::new() };
    match inner.store.tenant(session.org_id).update_session(update).await {
        Ok(_) | Err(UpdateError::NotLive(_)) => Ok(()),
        Err(UpdateError::Store(error)) => Err(error),
    }
}
