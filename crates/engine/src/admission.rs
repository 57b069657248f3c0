//! Places: a ceiling on sessions that hold a sandbox, and a bounded queue in front of it.
//!
//! Who waits gets a turn in rotation: org by org, and inside an org lane by lane. Single sessions are one lane, each fleet
//! is another, and a fleet waits for one turn at a time. So neither a fleet of ten thousand nor an org with a hundred
//! fleets holds up the next single session for longer than one turn.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;
use wire::{FleetId, OrgId};

use crate::CreateError;

/// When a refused caller should come again. Sessions are short; the queue moves within this.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The ceiling and the queue.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Sessions that may wait or run; members of fleets, which wait elsewhere, count while they run.
    capacity: usize,
}

#[derive(Debug)]
struct State {
    free: usize,
    taken: usize,
    rota: Rota,
}

/// Who shares turns inside an org.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Sessions,
    Fleet(FleetId),
}

/// A place in the queue, or beyond it: counted until dropped.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    org: OrgId,
    turn: Option<Turn>,
}

/// The right to a sandbox. Goes to the next one when it is dropped.
#[derive(Debug)]
struct Turn(Option<Arc<Shared>>);

type Waiter = oneshot::Sender<Turn>;

/// Who waits, in the order in which they get their turns.
#[derive(Debug, Default)]
struct Rota {
    orgs: VecDeque<(OrgId, Lanes)>,
}

type Lanes = VecDeque<(Lane, VecDeque<Waiter>)>;

impl Slots {
    /// `ceiling` sessions at once, `queue` more waiting.
    pub(crate) fn new(ceiling: usize, queue: usize) -> Self {
        let state = State { free: ceiling, taken: 0, rota: Rota::default() };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), capacity: ceiling.saturating_add(queue) }) }
    }

    /// Takes a place for a single session, or refuses at once.
    pub(crate) fn reserve(&self, org: OrgId) -> Result<Place, CreateError> {
        let mut state = self.shared.state();
        if state.taken >= self.shared.capacity {
            return Err(CreateError::Busy { retry_after: RETRY_AFTER });
        }
        state.taken += 1;
        Ok(Place { shared: Arc::clone(&self.shared), org, turn: None })
    }

    /// Waits for the turn of a fleet's next member. It has a place only then: what waits is the fleet.
    pub(crate) async fn member(&self, org: OrgId, fleet: FleetId) -> Place {
        let turn = self.shared.turn(org, Lane::Fleet(fleet)).await;
        self.shared.state().taken += 1;
        Place { shared: Arc::clone(&self.shared), org, turn: Some(turn) }
    }

    /// Sessions that wait or run.
    pub(crate) fn taken(&self) -> usize {
        self.shared.state().taken
    }
}

impl Shared {
    async fn turn(self: &Arc<Self>, org: OrgId, lane: Lane) -> Turn {
        let waiting = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return Turn(Some(Arc::clone(self)));
            }
            let (waiter, waiting) = oneshot::channel();
            state.rota.enter(org, lane, waiter);
            waiting
        };
        waiting.await.expect("a waiter is answered: it is held until it gets a turn")
    }

    /// Gives a turn to the next who still waits for one.
    fn pass_on(self: &Arc<Self>) {
        let mut state = self.state();
        let mut turn = Turn(Some(Arc::clone(self)));
        while let Some(waiter) = state.rota.next() {
            match waiter.send(turn) {
                Ok(()) => return,
                Err(back) => turn = back,
            }
        }
        turn.0 = None;
        state.free += 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rota {
    fn enter(&mut self, org: OrgId, lane: Lane, waiter: Waiter) {
        let known = self.orgs.iter().position(|(known, _)| *known == org);
        let at = known.unwrap_or_else(|| {
            self.orgs.push_back((org, Lanes::new()));
            self.orgs.len() - 1
        });
        let lanes = &mut self.orgs[at].1;
        match lanes.iter_mut().find(|(known, _)| *known == lane) {
            // Those who gave up are not waited behind.
            Some((_, waiters)) => {
                waiters.retain(|waiter| !waiter.is_closed());
                waiters.push_back(waiter);
            }
            None => lanes.push_back((lane, VecDeque::from([waiter]))),
        }
    }

    /// The org that had its turn goes to the end, and so does the lane inside it.
    fn next(&mut self) -> Option<Waiter> {
        loop {
            let (org, mut lanes) = self.orgs.pop_front()?;
            let mut found = None;
            if let Some((lane, mut waiters)) = lanes.pop_front() {
                found = waiters.pop_front();
                if !waiters.is_empty() {
                    lanes.push_back((lane, waiters));
                }
            }
            if !lanes.is_empty() {
                self.orgs.push_back((org, lanes));
            }
            if found.is_some() {
                return found;
            }
        }
    }
}

impl Place {
    /// Waits for the session's turn. It and the place are held until its sandbox is gone.
    pub(crate) async fn turn(&mut self) {
        if self.turn.is_none() {
            self.turn = Some(self.shared.turn(self.org, Lane::Sessions).await);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.state().taken -= 1;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use uuid::Uuid;

    use super::*;

    fn org(n: u128) -> OrgId {
        OrgId::from_uuid(Uuid::from_u128(n))
    }

    fn fleet(n: u128) -> FleetId {
        FleetId::from_uuid(Uuid::from_u128(n))
    }

    #[tokio::test]
    async fn beyond_ceiling_and_queue_callers_are_refused_until_a_place_is_free() {
        let slots = Slots::new(1, 1);
        let mut first = slots.reserve(org(1)).unwrap();
        first.turn().await;
        let mut second = slots.reserve(org(1)).unwrap();
        assert!(matches!(slots.reserve(org(2)), Err(CreateError::Busy { .. })));
        drop(first);
        second.turn().await;
        slots.reserve(org(2)).unwrap();
        assert_eq!(slots.taken(), 1);
    }

    /// Who gets a turn when, of those who wait behind one that runs. Each comes back `again` times for another.
    async fn rotation(waiting: &[(&'static str, u128, Option<u128>, usize)]) -> Vec<&'static str> {
        let slots = Slots::new(1, 100);
        let mut running = Some(slots.member(org(99), fleet(99)).await);
        let (told, mut said) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = Vec::new();
        for &(name, of, lane, times) in waiting {
            let (slots, told) = (slots.clone(), told.clone());
            tasks.push(tokio::spawn(async move {
                for _ in 0..times {
                    let place = if let Some(lane) = lane {
                        slots.member(org(of), fleet(lane)).await
                    } else {
                        let mut place = slots.reserve(org(of)).unwrap();
                        place.turn().await;
                        place
                    };
                    told.send((name, place)).unwrap();
                }
            }));
            // In this order into the queue.
            tokio::task::yield_now().await;
        }
        drop(told);
        let mut order = Vec::new();
        drop(running.take());
        while let Some((name, place)) = said.recv().await {
            order.push(name);
            // Whoever had a turn is back in the queue before the next one is given.
            tokio::task::yield_now().await;
            drop(place);
        }
        order
    }

    #[tokio::test]
    async fn a_single_session_does_not_wait_behind_a_fleet() {
        let order = rotation(&[("fleet", 1, Some(1), 5), ("single", 1, None, 2)]).await;
        assert_eq!(order, ["fleet", "single", "fleet", "single", "fleet", "fleet", "fleet"]);
    }

    #[tokio::test]
    async fn orgs_take_turns_whatever_each_of_them_has() {
        let order = rotation(&[("a1", 1, Some(1), 3), ("a2", 1, Some(2), 3), ("a3", 1, Some(3), 3), ("b", 2, None, 3)]);
        assert_eq!(order.await, ["a1", "b", "a2", "b", "a3", "b", "a1", "a2", "a3", "a1", "a2", "a3"]);
    }

    #[tokio::test]
    async fn a_turn_that_nobody_waits_for_any_more_goes_to_the_next() {
        let slots = Slots::new(1, 10);
        let mut first = slots.reserve(org(1)).unwrap();
        first.turn().await;
        let (mut gone, mut next) = (slots.reserve(org(1)).unwrap(), slots.reserve(org(1)).unwrap());
        assert!(gone.turn().now_or_never().is_none());
        let mut turn = Box::pin(next.turn());
        assert!(turn.as_mut().now_or_never().is_none());
        drop(gone);
        drop(first);
        turn.await;
        drop(next);
        // Given, and not taken: it is not lost.
        let mut holds = slots.reserve(org(1)).unwrap();
        holds.turn().await;
        let mut late = slots.reserve(org(1)).unwrap();
        let mut waits = Box::pin(late.turn());
        assert!(waits.as_mut().now_or_never().is_none());
        drop(holds);
        drop(waits);
        drop(late);
        slots.reserve(org(1)).unwrap().turn().await;
        assert_eq!(slots.taken(), 0);
    }
}
