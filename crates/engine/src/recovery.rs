//! Recovery: what an earlier process left is ended, told truthfully, and reclaimed before the first new session.

use model::{
    audit::Draft,
    phase::{Event, State, Verdict},
};
use store::{StoreError, Unfinished, Update, UpdateError};
use wire::{AuditType, FaultCode, Usage};

use crate::{Inner, StartError, output::Tails, reaper, view};

/// Ends every session that an earlier process did not, and removes every sandbox that it left.
pub(crate) async fn recover(inner: &Inner) -> Result<(), StartError> {
    for backend in &inner.backends {
        let name = backend.capabilities().name;
        let left = backend.list().await.map_err(|source| StartError::Recovery { name, source })?;
        if !left.is_empty() {
            tracing::warn!(backend = name, sandboxes = left.len(), "an earlier process left sandboxes; removing them");
        }
    }
    reaper::sweep_all(inner).await;
    let clean = all_clean(inner).await;
    let unfinished = inner.store.system().unfinished().await?;
    if !unfinished.is_empty() {
        tracing::warn!(sessions = unfinished.len(), "an earlier process left sessions; ending them");
    }
    for session in unfinished {
        end(inner, session, clean).await?;
    }
    Ok(())
}

/// Whether every backend says that nothing is left. If not, sessions stay visibly reclaiming and the next start, or the
/// reaper's sweep, goes on.
async fn all_clean(inner: &Inner) -> bool {
    for backend in &inner.backends {
        if !backend.list().await.is_ok_and(|left| left.is_empty()) {
            return false;
        }
    }
    true
}

async fn end(inner: &Inner, unfinished: Unfinished, clean: bool) -> Result<(), StoreError> {
    let Unfinished { mut session, .. } = unfinished;
    let (id, now) = (session.id, inner.clock.now());
    let mut state = view::state_of(&session);
    let (mut drafts, mut result) = (Vec::new(), None);
    if !matches!(state, State::Ended { .. }) {
        let detail = "the server was restarted while the session was under way; its output is lost";
        let verdict = Verdict::Faulted(view::fault(FaultCode::ServerRestarted, detail));
        result = Some(view::result(&session, &verdict, Usage::default(), None, Tails::default()));
        state = step(state, id, Event::Ended(verdict), now, &mut drafts);
        drafts.push(Draft::platform(now, AuditType::ResultCollected, id, serde_json::json!({ "bytes": 0 })));
    }
    if clean {
        state = step(state, id, Event::Reclaimed, now, &mut drafts);
    }
    view::show(&state, &mut session);
    let tenant = inner.store.tenant(session.org_id);
    match tenant.update_session(Update { session, sandbox: None, result, drafts, outbox: Vec::new() }).await {
        Ok(_) | Err(UpdateError::NotLive(_)) => Ok(()),
        Err(UpdateError::Store(error)) => Err(error),
    }
}

fn step(state: State, id: wire::SessionId, event: Event, now: wire::Timestamp, drafts: &mut Vec<Draft>) -> State {
    let (state, draft) =
        state.apply(id, event, now).expect("a state that is read back takes its end, then its reclaim");
    drafts.push(draft);
    state
}
