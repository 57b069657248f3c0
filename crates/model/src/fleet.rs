//! Fleets: what may be asked for, and what a fleet is by what its members are.

mod decide;

use wire::{
    Completion, FleetBudget, FleetCounts, FleetEndReason, FleetMember, FleetPhase, FleetUsage, MemberPhase, Outcome,
    Phase, Session, SessionFault,
};

pub use decide::{FleetSpec, INPUT_PATH, MemberSpecs, member_request};

/// Adds up what members are. In which order they come does not matter.
pub fn count(members: impl IntoIterator<Item = MemberPhase>) -> FleetCounts {
    let mut counts = FleetCounts::default();
    for member in members {
        counts.total += 1;
        *place(&mut counts, member) += 1;
    }
    counts
}

/// Counts one member that is no longer what it was.
pub fn recount(counts: &mut FleetCounts, before: MemberPhase, now: MemberPhase) {
    let left = place(counts, before);
    *left = left.saturating_sub(1);
    *place(counts, now) += 1;
}

fn place(counts: &mut FleetCounts, member: MemberPhase) -> &mut u32 {
    match member {
        MemberPhase::Queued => &mut counts.queued,
        MemberPhase::Pending => &mut counts.pending,
        MemberPhase::Running => &mut counts.running,
        MemberPhase::Succeeded => &mut counts.succeeded,
        MemberPhase::Failed => &mut counts.failed,
        MemberPhase::Killed => &mut counts.killed,
        MemberPhase::Skipped => &mut counts.skipped,
    }
}

/// Members that have to succeed.
pub fn needed(completion: Completion, total: u32) -> u32 {
    match completion {
        Completion::All => total,
        Completion::FirstSuccess => 1,
        Completion::Quorum(quorum) => quorum,
    }
}

/// Whether the members that are left are not needed any more: that ends them, if there are any. Members that fail end
/// nobody else: the others go on, whatever becomes of the whole.
pub fn is_met(counts: &FleetCounts, completion: Completion) -> bool {
    counts.succeeded >= needed(completion, counts.total)
}

/// What a fleet is, by what its members are and what ended it.
///
/// It has ended once all of its members have: whoever sees its end sees every result.
pub fn phase(counts: &FleetCounts, completion: Completion, ended_by: Option<FleetEndReason>) -> FleetPhase {
    if counts.queued + counts.pending + counts.running > 0 {
        let has_run = counts.running + counts.succeeded + counts.failed + counts.killed > 0;
        return if has_run { FleetPhase::Running } else { FleetPhase::Pending };
    }
    if is_met(counts, completion) {
        return FleetPhase::Succeeded;
    }
    match ended_by {
        None | Some(FleetEndReason::CompletionMet) => FleetPhase::Failed,
        Some(
            FleetEndReason::Cancelled
            | FleetEndReason::CpuBudgetExceeded
            | FleetEndReason::WallBudgetExceeded
            | FleetEndReason::EgressBudgetExceeded
            | FleetEndReason::BindingBudgetExceeded,
        ) => FleetPhase::Killed,
    }
}

/// Which bound of the budget is used up while there is more to do.
pub fn exceeded(budget: &FleetBudget, used: &FleetUsage) -> Option<FleetEndReason> {
    let bounds = [
        (budget.cpu_ms, used.cpu_ms, FleetEndReason::CpuBudgetExceeded),
        (budget.wall_ms, used.wall_ms, FleetEndReason::WallBudgetExceeded),
        (budget.egress_bytes, used.egress_bytes, FleetEndReason::EgressBudgetExceeded),
        (budget.binding_calls, used.binding_calls, FleetEndReason::BindingBudgetExceeded),
    ];
    bounds.into_iter().find(|(bound, used, _)| bound.is_some_and(|bound| *used >= bound)).map(|(.., reason)| reason)
}

/// What is recorded of a member.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemberRecord {
    /// Its place in the request.
    pub index: u32,
    /// Its session, once its turn has come.
    pub session: Option<Session>,
    /// Why the fleet ended or skipped it, if it did.
    pub ended_by: Option<FleetEndReason>,
    /// Why it could not be started, or what is known no more of it.
    pub fault: Option<SessionFault>,
}

impl MemberRecord {
    /// As callers see it.
    pub fn view(&self) -> FleetMember {
        let mut member = FleetMember {
            index: self.index,
            session_id: None,
            phase: if self.ended_by.is_some() { MemberPhase::Skipped } else { MemberPhase::Queued },
            outcome: None,
            kill_reason: None,
            fault: None,
            reason: self.ended_by,
            started_at: None,
            finished_at: None,
            usage: None,
        };
        if let Some(session) = &self.session {
            member.session_id = Some(session.id);
            member.phase = phase_of(session);
            member.outcome = session.outcome;
            member.kill_reason = session.kill_reason;
            member.fault.clone_from(&session.fault);
            // One that had just ended by itself was not ended by the fleet.
            member.reason = self.ended_by.filter(|_| session.outcome == Some(Outcome::Cancelled));
            member.started_at = session.started_at;
            member.finished_at = session.finished_at;
            member.usage = session.usage;
        }
        if let Some(fault) = &self.fault {
            member.phase = MemberPhase::Failed;
            member.outcome = Some(Outcome::Faulted);
            member.fault = Some(fault.clone());
            member.reason = None;
        }
        member
    }
}

fn phase_of(session: &Session) -> MemberPhase {
    match (session.phase, session.outcome) {
        (Phase::Pending, _) => MemberPhase::Pending,
        (Phase::Running | Phase::Paused, _) => MemberPhase::Running,
        (Phase::Succeeded, _) | (Phase::TornDown, Some(Outcome::Succeeded)) => MemberPhase::Succeeded,
        (Phase::Failed, _) | (Phase::TornDown, Some(Outcome::Failed | Outcome::Faulted) | None) => MemberPhase::Failed,
        (Phase::Killed, _) | (Phase::TornDown, Some(Outcome::Killed | Outcome::Cancelled)) => MemberPhase::Killed,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A member's whole life: where it is, one after the other.
    fn life() -> impl Strategy<Value = Vec<MemberPhase>> {
        let ran = [MemberPhase::Pending, MemberPhase::Running];
        let ends = prop_oneof![Just(MemberPhase::Succeeded), Just(MemberPhase::Failed), Just(MemberPhase::Killed)];
        prop_oneof![
            4 => ends.clone().prop_map(move |end| [&ran[..], &[end]].concat()),
            // Its sandbox was not ready, or it could not be started.
            1 => Just(vec![MemberPhase::Pending, MemberPhase::Failed]),
            1 => Just(vec![MemberPhase::Failed]),
            1 => Just(vec![MemberPhase::Pending, MemberPhase::Killed]),
            1 => Just(vec![MemberPhase::Skipped]),
        ]
    }

    fn completion() -> impl Strategy<Value = Completion> {
        prop_oneof![Just(Completion::All), Just(Completion::FirstSuccess), (1..8_u32).prop_map(Completion::Quorum)]
    }

    fn reason() -> impl Strategy<Value = Option<FleetEndReason>> {
        proptest::option::of(prop_oneof![
            Just(FleetEndReason::Cancelled),
            Just(FleetEndReason::CompletionMet),
            Just(FleetEndReason::WallBudgetExceeded),
        ])
    }

    /// Plays lives, the member to go on being picked by `order`; gives every phase of the fleet on the way.
    fn play(
        lives: &[Vec<MemberPhase>],
        order: &[usize],
        completion: Completion,
        reason: Option<FleetEndReason>,
    ) -> Vec<FleetPhase> {
        let mut at = vec![0; lives.len()];
        let mut counts = count(lives.iter().map(|_| MemberPhase::Queued));
        let mut seen = vec![phase(&counts, completion, None)];
        let mut order = order.iter().cycle();
        while at.iter().zip(lives).any(|(at, life)| *at < life.len()) {
            let open: Vec<_> = (0..lives.len()).filter(|member| at[*member] < lives[*member].len()).collect();
            let member = open[order.next().unwrap() % open.len()];
            let before = at[member].checked_sub(1).map_or(MemberPhase::Queued, |last| lives[member][last]);
            recount(&mut counts, before, lives[member][at[member]]);
            at[member] += 1;
            seen.push(phase(&counts, completion, reason));
        }
        assert_eq!(counts, count(lives.iter().map(|life| *life.last().unwrap())), "counting is exact");
        seen
    }

    proptest! {
        #[test]
        fn in_any_order_of_its_members_a_fleet_ends_the_same(
            lives in proptest::collection::vec(life(), 1..8),
            order in proptest::collection::vec(any::<usize>(), 1..40),
            other in proptest::collection::vec(any::<usize>(), 1..40),
            completion in completion(),
            reason in reason(),
        ) {
            let (one, two) = (play(&lives, &order, completion, reason), play(&lives, &other, completion, reason));
            prop_assert_eq!(one.last(), two.last());
            prop_assert!(one.last().unwrap().is_terminal());
        }

        #[test]
        fn a_fleet_only_moves_on_and_its_end_stays(
            lives in proptest::collection::vec(life(), 1..8),
            order in proptest::collection::vec(any::<usize>(), 1..40),
            completion in completion(),
            reason in reason(),
        ) {
            let seen = play(&lives, &order, completion, reason);
            for pair in seen.windows(2) {
                prop_assert!(!pair[0].is_terminal() && pair[0] <= pair[1], "{seen:?}");
            }
        }

        #[test]
        fn it_has_succeeded_exactly_when_enough_members_have(
            lives in proptest::collection::vec(life(), 1..8),
            completion in completion(),
            reason in reason(),
        ) {
            let ends: Vec<_> = lives.iter().map(|life| *life.last().unwrap()).collect();
            let counts = count(ends.iter().copied());
            let succeeded = ends.iter().filter(|end| **end == MemberPhase::Succeeded).count();
            let enough = succeeded >= needed(completion, counts.total) as usize;
            prop_assert_eq!(phase(&counts, completion, reason) == FleetPhase::Succeeded, enough);
        }
    }

    #[test]
    fn a_member_that_fails_ends_nobody_and_a_fleet_waits_for_all() {
        use MemberPhase::{Failed, Killed, Queued, Running, Skipped, Succeeded};
        let of =
            |members: &[MemberPhase], completion, reason| phase(&count(members.iter().copied()), completion, reason);
        assert_eq!(of(&[Queued, Queued], Completion::All, None), FleetPhase::Pending);
        assert_eq!(of(&[Killed, Running, Queued], Completion::All, None), FleetPhase::Running);
        assert_eq!(of(&[Killed, Succeeded], Completion::All, None), FleetPhase::Failed);
        assert_eq!(of(&[Killed, Succeeded], Completion::FirstSuccess, None), FleetPhase::Succeeded);
        let met = Some(FleetEndReason::CompletionMet);
        assert_eq!(of(&[Running, Succeeded], Completion::FirstSuccess, met), FleetPhase::Running);
        assert_eq!(of(&[Killed, Succeeded, Skipped], Completion::FirstSuccess, met), FleetPhase::Succeeded);
        assert_eq!(of(&[Failed, Succeeded, Succeeded], Completion::Quorum(2), None), FleetPhase::Succeeded);
        assert_eq!(of(&[Failed, Failed, Succeeded], Completion::Quorum(2), None), FleetPhase::Failed);
        for reason in [FleetEndReason::Cancelled, FleetEndReason::CpuBudgetExceeded] {
            assert_eq!(of(&[Killed, Succeeded, Skipped], Completion::All, Some(reason)), FleetPhase::Killed);
            assert_eq!(of(&[Succeeded], Completion::All, Some(reason)), FleetPhase::Succeeded, "it was done");
        }
    }

    #[test]
    fn a_budget_is_used_up_by_the_bound_that_is() {
        let budget = FleetBudget { cpu_ms: Some(10), wall_ms: None, egress_bytes: Some(5), binding_calls: Some(2) };
        let used =
            |cpu_ms, egress_bytes, binding_calls| FleetUsage { cpu_ms, wall_ms: 1 << 40, egress_bytes, binding_calls };
        assert_eq!(exceeded(&budget, &used(9, 4, 1)), None);
        assert_eq!(exceeded(&budget, &used(10, 4, 1)), Some(FleetEndReason::CpuBudgetExceeded));
        assert_eq!(exceeded(&budget, &used(9, 5, 1)), Some(FleetEndReason::EgressBudgetExceeded));
        assert_eq!(exceeded(&budget, &used(9, 4, 3)), Some(FleetEndReason::BindingBudgetExceeded));
    }
}
