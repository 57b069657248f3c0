//! Between the rules' state and the contract's session.

use model::{
    access::Caller,
    capability::Capabilities,
    phase::{State, Verdict},
    session::SessionSpec,
};
use wire::{
    Denial, FaultCode, JsonText, Outcome, Phase, Session, SessionFault, SessionId, SessionResult, Timestamp, Usage,
};

use crate::output::Tails;

/// The session as it is first recorded.
pub(crate) fn pending(
    id: SessionId,
    caller: &Caller,
    spec: &SessionSpec,
    capabilities: &Capabilities,
    now: Timestamp,
) -> Session {
    let image = spec.image.clone().or_else(|| capabilities.images.first().cloned()).unwrap_or_default();
    Session {
        id,
        org_id: caller.org,
        created_by: caller.subject.to_string(),
        phase: Phase::Pending,
        outcome: None,
        kill_reason: None,
        fault: None,
        language: spec.language,
        exec_mode: spec.exec_mode,
        interactive: spec.interactive.map(|bounds| bounds.view()),
        backend: capabilities.name.to_owned(),
        isolation: capabilities.isolation,
        image,
        limits: spec.limits.view(),
        egress: spec.egress.clone(),
        service_bindings: spec.service_bindings.clone(),
        labels: spec.labels.clone(),
        args: spec.args.clone(),
        env: spec.env.clone(),
        created_at: now,
        started_at: None,
        finished_at: None,
        torn_down_at: None,
        usage: None,
        enforcement: capabilities.enforcement_of(spec),
    }
}

/// Writes a state into the session.
pub(crate) fn show(state: &State, session: &mut Session) {
    session.phase = state.phase();
    let (started_at, finished_at, torn_down_at) = match state {
        State::Pending | State::Provisioned => (None, None, None),
        State::Running { started_at } => (Some(*started_at), None, None),
        State::Ended { started_at, finished_at, .. } => (*started_at, Some(*finished_at), None),
        State::TornDown { started_at, finished_at, torn_down_at, .. } => {
            (*started_at, Some(*finished_at), Some(*torn_down_at))
        }
    };
    session.started_at = started_at;
    session.finished_at = finished_at;
    session.torn_down_at = torn_down_at;
    if let Some(verdict) = state.verdict() {
        session.outcome = Some(verdict.outcome());
        session.kill_reason = verdict.kill_reason();
        session.fault = verdict.fault().cloned();
    }
}

/// Reads the state back from a recorded session that is not torn down.
pub(crate) fn state_of(session: &Session) -> State {
    let Some(finished_at) = session.finished_at else {
        return match session.started_at {
            Some(started_at) => State::Running { started_at },
            None => State::Pending,
        };
    };
    let verdict = match session.outcome {
        Some(Outcome::Succeeded) => Verdict::Exited { exit_code: 0 },
        Some(Outcome::Failed) => Verdict::Exited { exit_code: 1 },
        Some(Outcome::Killed) => match session.kill_reason {
            Some(reason) => Verdict::Quota(reason),
            None => unknown_end(),
        },
        Some(Outcome::Cancelled) => Verdict::Cancelled { by: "platform".into() },
        Some(Outcome::Faulted) | None => match &session.fault {
            Some(fault) => Verdict::Faulted(fault.clone()),
            None => unknown_end(),
        },
    };
    State::Ended { started_at: session.started_at, finished_at, verdict }
}

fn unknown_end() -> Verdict {
    Verdict::Faulted(fault(FaultCode::Internal, "the end of the session was recorded incompletely"))
}

/// A fault of ours, in words that say nothing internal.
pub(crate) fn fault(code: FaultCode, detail: &str) -> SessionFault {
    SessionFault { code, detail: detail.to_owned() }
}

/// The result of a session that has just ended.
pub(crate) fn result(
    session: &Session,
    verdict: &Verdict,
    usage: Usage,
    given: Option<JsonText>,
    tails: Tails,
    denials: Vec<Denial>,
) -> SessionResult {
    SessionResult {
        session_id: session.id,
        outcome: verdict.outcome(),
        kill_reason: verdict.kill_reason(),
        fault: verdict.fault().cloned(),
        exit_code: verdict.exit_code(),
        result: given,
        stdout_truncated: tails.stdout.offset > 0,
        stdout_tail_offset: tails.stdout.offset,
        stdout_tail: tails.stdout.text,
        stderr_truncated: tails.stderr.offset > 0,
        stderr_tail_offset: tails.stderr.offset,
        stderr_tail: tails.stderr.text,
        artifacts: Vec::new(),
        artifacts_skipped: Vec::new(),
        usage,
        denials,
    }
}
