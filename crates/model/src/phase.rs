//! A session's life as data with consuming transitions.
//!
//! ```text
//! Pending --Provisioned--> Provisioned --Started--> Running --Ended--> Ended --Reclaimed--> TornDown
//!    |                         |                                         ^
//!    +------------Ended--------+-----------------------------------------+
//! ```
//!
//! Every arrow writes exactly one audit event. The engine's driver is the only caller of [`State::apply`].

use serde_json::{Value, json};
use wire::{AuditType, KillReason, Outcome, Phase, SessionFault, SessionId, Timestamp};

use crate::audit::Draft;

/// How a session ended, decided once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The workload exited by itself.
    Exited {
        /// 128 + n when signal n ended it.
        exit_code: i32,
    },
    /// A limit ended it.
    Quota(KillReason),
    /// Somebody deleted the session.
    Cancelled {
        /// Who.
        by: String,
    },
    /// We failed.
    Faulted(SessionFault),
}

impl Verdict {
    /// The contract's word for it.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Exited { exit_code: 0 } => Outcome::Succeeded,
            Self::Exited { .. } => Outcome::Failed,
            Self::Quota(_) => Outcome::Killed,
            Self::Cancelled { .. } => Outcome::Cancelled,
            Self::Faulted(_) => Outcome::Faulted,
        }
    }

    /// The phase in which the session is until it is reclaimed.
    pub fn phase(&self) -> Phase {
        match self.outcome() {
            Outcome::Succeeded => Phase::Succeeded,
            Outcome::Failed | Outcome::Faulted => Phase::Failed,
            Outcome::Killed | Outcome::Cancelled => Phase::Killed,
        }
    }

    /// The limit that ended it.
    pub fn kill_reason(&self) -> Option<KillReason> {
        match self {
            Self::Quota(reason) => Some(*reason),
            Self::Exited { .. } | Self::Cancelled { .. } | Self::Faulted(_) => None,
        }
    }

    /// The exit code, when the workload had one.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exited { exit_code } => Some(*exit_code),
            Self::Quota(_) | Self::Cancelled { .. } | Self::Faulted(_) => None,
        }
    }

    /// What failed on our side.
    pub fn fault(&self) -> Option<&SessionFault> {
        match self {
            Self::Faulted(fault) => Some(fault),
            Self::Exited { .. } | Self::Quota(_) | Self::Cancelled { .. } => None,
        }
    }
}

/// Where a session is, with what is known there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Accepted; waits for a place, or for its sandbox.
    Pending,
    /// Its sandbox is ready.
    Provisioned,
    /// Its workload runs.
    Running {
        /// Since when.
        started_at: Timestamp,
    },
    /// Its end is decided; its sandbox is being reclaimed.
    Ended {
        /// When the workload started, if it did.
        started_at: Option<Timestamp>,
        /// When it ended.
        finished_at: Timestamp,
        /// How.
        verdict: Verdict,
    },
    /// Nothing of it is left.
    TornDown {
        /// When the workload started, if it did.
        started_at: Option<Timestamp>,
        /// When it ended.
        finished_at: Timestamp,
        /// How.
        verdict: Verdict,
        /// When the last of it was gone.
        torn_down_at: Timestamp,
    },
}

/// What can happen to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A sandbox with the session's limits in force is there.
    Provisioned {
        /// Its name.
        sandbox: String,
    },
    /// The runner confirmed the start.
    Started,
    /// The end was decided.
    Ended(Verdict),
    /// The backend found nothing left.
    Reclaimed,
}

/// The event cannot happen in this state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event} cannot follow {phase}")]
pub struct InvalidTransition {
    /// The contract's name of the state.
    pub phase: &'static str,
    /// The event.
    pub event: &'static str,
}

impl State {
    /// Moves on, and gives the one audit event of this arrow.
    pub fn apply(self, session: SessionId, event: Event, now: Timestamp) -> Result<(Self, Draft), InvalidTransition> {
        let refused = InvalidTransition { phase: self.phase().as_str(), event: event.name() };
        let (state, kind, actor, data) = match (self, event) {
            (Self::Pending, Event::Provisioned { sandbox }) => {
                (Self::Provisioned, AuditType::SandboxProvisioned, None, json!({ "sandbox": sandbox }))
            }
            (Self::Provisioned, Event::Started) => {
                (Self::Running { started_at: now }, AuditType::SandboxStarted, None, json!({}))
            }
            (Self::Pending | Self::Provisioned, Event::Ended(verdict)) => ended(None, now, verdict),
            (Self::Running { started_at }, Event::Ended(verdict)) => ended(Some(started_at), now, verdict),
            (Self::Ended { started_at, finished_at, verdict }, Event::Reclaimed) => (
                Self::TornDown { started_at, finished_at, verdict, torn_down_at: now },
                AuditType::SessionTornDown,
                None,
                json!({ "residue": 0 }),
            ),
            (
                Self::Pending | Self::Provisioned | Self::Running { .. } | Self::Ended { .. } | Self::TornDown { .. },
                Event::Provisioned { .. } | Event::Started | Event::Ended(_) | Event::Reclaimed,
            ) => return Err(refused),
        };
        let draft = Draft::platform(now, kind, session, data);
        Ok((
            state,
            match actor {
                Some(actor) => draft.by(actor),
                None => draft,
            },
        ))
    }

    /// The contract's word for it.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Pending | Self::Provisioned => Phase::Pending,
            Self::Running { .. } => Phase::Running,
            Self::Ended { verdict, .. } => verdict.phase(),
            Self::TornDown { .. } => Phase::TornDown,
        }
    }

    /// How it ended, once it has.
    pub fn verdict(&self) -> Option<&Verdict> {
        match self {
            Self::Ended { verdict, .. } | Self::TornDown { verdict, .. } => Some(verdict),
            Self::Pending | Self::Provisioned | Self::Running { .. } => None,
        }
    }
}

fn ended(started_at: Option<Timestamp>, now: Timestamp, verdict: Verdict) -> (State, AuditType, Option<String>, Value) {
    let (kind, actor, data) = match &verdict {
        Verdict::Exited { exit_code } => {
            (AuditType::WorkloadExited, None, json!({ "cause": "exited", "exitCode": exit_code }))
        }
        Verdict::Quota(reason) => (AuditType::QuotaKilled, None, json!({ "killReason": reason })),
        Verdict::Cancelled { by } => (AuditType::WorkloadExited, Some(by.clone()), json!({ "cause": "cancelled" })),
        Verdict::Faulted(fault) => {
            (AuditType::WorkloadExited, None, json!({ "cause": "faulted", "fault": fault.code }))
        }
    };
    (State::Ended { started_at, finished_at: now, verdict }, kind, actor, data)
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::Provisioned { .. } => "provisioned",
            Self::Started => "started",
            Self::Ended(_) => "ended",
            Self::Reclaimed => "reclaimed",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;
    use wire::FaultCode;

    use super::*;

    fn session() -> SessionId {
        SessionId::from_uuid(Uuid::nil())
    }

    fn verdict() -> impl Strategy<Value = Verdict> {
        prop_oneof![
            (0..256).prop_map(|exit_code| Verdict::Exited { exit_code }),
            Just(Verdict::Quota(KillReason::MemoryExceeded)),
            Just(Verdict::Cancelled { by: "key_1".into() }),
            Just(Verdict::Faulted(SessionFault { code: FaultCode::SandboxLost, detail: "lost".into() })),
        ]
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Provisioned { sandbox: "sbx".into() }),
            Just(Event::Started),
            verdict().prop_map(Event::Ended),
            Just(Event::Reclaimed),
        ]
    }

    proptest! {
        #[test]
        fn in_any_order_of_events_phases_only_move_on_and_the_verdict_stays(events in proptest::collection::vec(event(), 0..30)) {
            let mut state = State::Pending;
            let mut audited = Vec::new();
            for (n, event) in events.into_iter().enumerate() {
                let before = state.clone();
                let now = Timestamp::from_millis(i64::try_from(n).unwrap());
                match state.clone().apply(session(), event, now) {
                    Ok((after, draft)) => {
                        prop_assert!(after.phase() >= before.phase());
                        if let Some(verdict) = before.verdict() {
                            prop_assert_eq!(after.verdict(), Some(verdict));
                        }
                        audited.push(draft.kind);
                        state = after;
                    }
                    Err(refused) => prop_assert_eq!(refused.phase, before.phase().as_str()),
                }
            }
            let torn_down = audited.iter().filter(|kind| **kind == AuditType::SessionTornDown).count();
            prop_assert_eq!(torn_down == 1, matches!(state, State::TornDown { .. }));
            let ends = [AuditType::WorkloadExited, AuditType::QuotaKilled];
            prop_assert!(audited.iter().filter(|kind| ends.contains(kind)).count() <= 1);
        }
    }

    #[test]
    fn a_clean_run_reads_as_the_contract_says() {
        let mut state = State::Pending;
        let mut audited = Vec::new();
        let clean = [
            Event::Provisioned { sandbox: "sbx".into() },
            Event::Started,
            Event::Ended(Verdict::Exited { exit_code: 0 }),
            Event::Reclaimed,
        ];
        for event in clean {
            let (next, draft) = state.apply(session(), event, Timestamp::from_millis(0)).unwrap();
            audited.push(draft.kind.as_str());
            state = next;
        }
        assert_eq!(audited, ["sandbox_provisioned", "sandbox_started", "workload_exited", "session_torn_down"]);
        assert_eq!(state.phase(), Phase::TornDown);
    }

    #[test]
    fn who_cancelled_stands_in_the_audit_log() {
        let cancelled = Event::Ended(Verdict::Cancelled { by: "key_7".into() });
        let (_, draft) = State::Pending.apply(session(), cancelled, Timestamp::from_millis(0)).unwrap();
        assert_eq!(draft.actor, "key_7");
    }
}
