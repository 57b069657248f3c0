//! The task that owns a fleet: it starts members while their turns come, and adds up what becomes of them.
//!
//! ```text
//! members wait --turn--> a member starts --its session--> it has ended --> all have: the fleet has finished
//!      |                                                      |
//!      +------- completion met, budget used up, cancelled ----+   ends what runs, and skips what waits
//! ```
//!
//! It is the only writer of a fleet's row, and of what its hub shows. It holds a byte for each member and little else: what
//! a member is to run stays in the store until its turn comes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use model::{access::Caller, fleet};
use serde_json::json;
use store::{FleetChange, Seat};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use wire::{AuditType, Fleet, FleetEndReason, FleetMember, FleetUsage, MemberPhase, Timestamp, Usage};

use super::{create::draft, hub::FleetHub, member::Member};
use crate::{Engine, admission::Place, driver::Backoff, live::Spent};

/// Changes of members that wait to be added up; members wait to tell more.
const EVENTS: usize = 64;

/// A fleet when its task begins.
pub(super) struct Standing {
    fleet: Fleet,
    members: Vec<MemberPhase>,
}

impl Standing {
    /// `fleet.used` is what the members that have ended have used.
    pub(super) fn new(fleet: Fleet, members: Vec<MemberPhase>) -> Self {
        Self { fleet, members }
    }
}

/// What a member's task tells.
pub(super) enum Event {
    /// What the member is now.
    Changed(Box<FleetMember>),
    /// What it has used so far.
    Spent(u32, Spent),
}

/// A member that has got its turn.
#[derive(Default)]
struct Flight {
    started_at: Option<Timestamp>,
    spent: Spent,
}

struct Run {
    engine: Engine,
    caller: Caller,
    hub: Arc<FleetHub>,
    fleet: Fleet,
    members: Vec<MemberPhase>,
    /// The first member that may still wait.
    next: usize,
    /// What the members that have ended have used.
    settled: FleetUsage,
    flights: HashMap<u32, Flight>,
    tasks: JoinSet<u32>,
    ended_by: watch::Sender<Option<FleetEndReason>>,
    told: mpsc::Sender<Event>,
    /// Who is told of as the one that ended it.
    ender: String,
}

/// Starts the fleet's task.
pub(super) fn start(engine: &Engine, caller: Caller, hub: Arc<FleetHub>, standing: Standing) {
    let Standing { fleet, members } = standing;
    let (told, events) = mpsc::channel(EVENTS);
    let run = Run {
        engine: engine.clone(),
        caller,
        hub,
        settled: fleet.used,
        ended_by: watch::Sender::new(fleet.reason),
        fleet,
        members,
        next: 0,
        flights: HashMap::new(),
        tasks: JoinSet::new(),
        told,
        ender: "platform".to_owned(),
    };
    engine.inner.drivers.spawn(run.run(events));
}

impl Run {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let (hub, slots) = (Arc::clone(&self.hub), self.engine.inner.slots.clone());
        let draining = self.engine.inner.draining.clone();
        let mut turn: Option<BoxFuture<'static, Place>> = None;
        loop {
            self.judge().await;
            if self.active() == 0 {
                return self.finish().await;
            }
            if draining.is_cancelled() && self.tasks.is_empty() {
                return self.leave();
            }
            let wants = self.may_start() && !draining.is_cancelled();
            if !wants {
                turn = None;
            } else if turn.is_none() {
                let (slots, org, id) = (slots.clone(), self.fleet.org_id, self.fleet.id);
                turn = Some(Box::pin(async move { slots.member(org, id).await }));
            }
            let wall = self.wall_deadline();
            tokio::select! {
                biased;
                by = hub.cancelled(), if self.fleet.reason.is_none() => {
                    self.ender = by;
                    self.end_by(FleetEndReason::Cancelled).await;
                }
                event = events.recv() => {
                    // Its other end is in self.
                    if let Some(event) = event {
                        self.take(event);
                    }
                }
                Some(over) = self.tasks.join_next() => self.landed(over),
                () = draining.cancelled(), if !draining.is_cancelled() => {}
                () = until(wall) => {}
                place = given(&mut turn) => {
                    turn = None;
                    self.start_next(place);
                }
            }
        }
    }

    fn active(&self) -> u32 {
        let counts = &self.fleet.counts;
        counts.queued + counts.pending + counts.running
    }

    /// Members that may hold a sandbox at the same time.
    fn ceiling(&self) -> usize {
        let deployment = self.engine.inner.config.max_concurrency;
        self.fleet.max_concurrency.map_or(deployment, |asked| deployment.min(asked as usize))
    }

    fn may_start(&mut self) -> bool {
        if self.fleet.reason.is_some() || self.tasks.len() >= self.ceiling() {
            return false;
        }
        let waits = |index: &usize| self.members[*index] == MemberPhase::Queued && !self.flies(*index);
        self.next = (self.next..self.members.len()).find(waits).unwrap_or(self.members.len());
        self.next < self.members.len()
    }

    fn flies(&self, index: usize) -> bool {
        u32::try_from(index).is_ok_and(|index| self.flights.contains_key(&index))
    }

    fn start_next(&mut self, place: Place) {
        let Ok(index) = u32::try_from(self.next) else { return };
        self.next += 1;
        self.flights.insert(index, Flight::default());
        let cpu = self.fleet.budget.and_then(|budget| budget.cpu_ms);
        let member = Member {
            engine: self.engine.clone(),
            caller: self.caller.clone(),
            seat: Seat { fleet: self.fleet.id, index },
            cpu_left: cpu.map(|cpu| cpu.saturating_sub(self.settled.cpu_ms)),
            ended_by: self.ended_by.subscribe(),
            told: self.told.clone(),
        };
        self.tasks.spawn(member.run(place));
    }

    /// A member's task is over: it told all that it knew.
    fn landed(&mut self, over: Result<u32, tokio::task::JoinError>) {
        match over {
            // Of one that was left waiting for the next start nothing was told.
            Ok(index) => drop(self.flights.remove(&index)),
            Err(error) => tracing::error!(fleet = %self.fleet.id, %error, "a member's task ended badly"),
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Spent(index, spent) => {
                if let Some(flight) = self.flights.get_mut(&index) {
                    flight.spent = spent;
                }
                self.fleet.used = self.used();
                let used = self.fleet.used;
                self.hub.update(|fleet| fleet.used = used);
            }
            Event::Changed(member) => self.changed(*member),
        }
    }

    fn changed(&mut self, member: FleetMember) {
        let Some(known) = self.members.get_mut(member.index as usize) else { return };
        if known.is_over() {
            return;
        }
        fleet::recount(&mut self.fleet.counts, *known, member.phase);
        *known = member.phase;
        if member.phase.is_over() {
            let flight = self.flights.remove(&member.index).unwrap_or_default();
            self.settle(member.usage.unwrap_or_default(), flight.spent);
        } else if let Some(flight) = self.flights.get_mut(&member.index) {
            flight.started_at = member.started_at;
        }
        self.fleet.used = self.used();
        let before = (self.fleet.phase, self.fleet.started_at);
        self.fleet.started_at = before.1.or(member.started_at);
        if self.active() > 0 {
            self.fleet.phase = fleet::phase(&self.fleet.counts, self.fleet.completion, self.fleet.reason);
        }
        let (phase, started_at) = (self.fleet.phase, self.fleet.started_at);
        if (phase, started_at) != before {
            self.hub.update(|fleet| (fleet.phase, fleet.started_at) = (phase, started_at));
        }
        let is_over = member.phase.is_over();
        self.hub.member(member, self.fleet.counts, self.fleet.used);
        // The last one is told with the end, which has to be recorded first.
        if self.active() > 0 && (is_over || phase != before.0) {
            self.hub.progress();
        }
    }

    fn settle(&mut self, usage: Usage, spent: Spent) {
        let settled = &mut self.settled;
        settled.cpu_ms = settled.cpu_ms.saturating_add(usage.cpu_ms);
        settled.wall_ms = settled.wall_ms.saturating_add(usage.wall_ms);
        settled.egress_bytes = settled.egress_bytes.saturating_add(usage.egress_bytes.max(spent.egress_bytes));
        settled.binding_calls = settled.binding_calls.saturating_add(spent.binding_calls);
    }

    /// What is known to be used by now.
    fn used(&self) -> FleetUsage {
        let flying = self.flights.values().fold(Spent::default(), |sum, flight| Spent {
            egress_bytes: sum.egress_bytes.saturating_add(flight.spent.egress_bytes),
            binding_calls: sum.binding_calls.saturating_add(flight.spent.binding_calls),
        });
        FleetUsage {
            egress_bytes: self.settled.egress_bytes.saturating_add(flying.egress_bytes),
            binding_calls: self.settled.binding_calls.saturating_add(flying.binding_calls),
            ..self.settled
        }
    }

    /// Times of the members that run.
    fn running(&self) -> impl Iterator<Item = u64> {
        let now = self.engine.inner.clock.now().as_millis();
        let started = self.flights.values().filter_map(|flight| flight.started_at);
        started.map(move |at| u64::try_from(now.saturating_sub(at.as_millis())).unwrap_or(0))
    }

    /// When the budget of time will be used up, if nothing changes until then.
    fn wall_deadline(&self) -> Option<Instant> {
        let budget = self.fleet.budget?.wall_ms.filter(|_| self.fleet.reason.is_none())?;
        let (running, used) = self.running().fold((0, self.settled.wall_ms), |(n, sum), ms| (n + 1, sum + ms));
        if running == 0 {
            return None;
        }
        Some(Instant::now() + Duration::from_millis(budget.saturating_sub(used).div_ceil(running)))
    }

    /// Ends the fleet if there is more to do and it need not, or must not, be done.
    async fn judge(&mut self) {
        if self.fleet.reason.is_some() || self.active() == 0 {
            return;
        }
        if fleet::is_met(&self.fleet.counts, self.fleet.completion) {
            return self.end_by(FleetEndReason::CompletionMet).await;
        }
        let Some(budget) = self.fleet.budget else { return };
        let mut used = self.fleet.used;
        used.wall_ms = used.wall_ms.saturating_add(self.running().sum());
        if let Some(reason) = fleet::exceeded(&budget, &used) {
            self.end_by(reason).await;
        }
    }

    /// Ends what runs, and skips what waits.
    async fn end_by(&mut self, reason: FleetEndReason) {
        self.fleet.reason = Some(reason);
        // Whether or not it can be recorded now: limits and cancellations hold all the same.
        self.ended_by.send_replace(Some(reason));
        if self.record(&FleetChange::EndedBy { id: self.fleet.id, reason }).await.is_err() {
            return;
        }
        self.hub.update(|fleet| fleet.reason = Some(reason));
        for index in 0..self.members.len() {
            if self.members[index] == MemberPhase::Queued
                && !self.flies(index)
                && let Ok(index) = u32::try_from(index)
            {
                let skipped = fleet::MemberRecord { index, ended_by: Some(reason), ..fleet::MemberRecord::default() };
                self.changed(skipped.view());
            }
        }
    }

    /// Records the end, then shows it.
    async fn finish(mut self) {
        let now = self.engine.inner.clock.now();
        self.fleet.phase = fleet::phase(&self.fleet.counts, self.fleet.completion, self.fleet.reason);
        self.fleet.finished_at = Some(now);
        let data = json!({
            "fleet": self.fleet.id, "phase": self.fleet.phase, "reason": self.fleet.reason,
            "counts": self.fleet.counts, "used": self.fleet.used,
        });
        let draft = draft(AuditType::FleetFinished, &self.ender, data, now);
        let change = FleetChange::Finish { fleet: Box::new(self.fleet.clone()), draft };
        if self.record(&change).await.is_err() {
            return self.leave();
        }
        // Members whose sandboxes are still being reclaimed have drivers of their own.
        self.tasks.detach_all();
        self.engine.inner.fleets.leave(self.fleet.id);
        self.hub.end(self.fleet);
    }

    /// Leaves the rest to the next start.
    fn leave(self) {
        self.engine.inner.fleets.leave(self.fleet.id);
        self.hub.close();
    }

    /// Records a change. A store that does not answer is waited for, until the server's deadline.
    async fn record(&self, change: &FleetChange) -> Result<(), Unrecorded> {
        let deadline = self.engine.inner.deadline.clone();
        let mut backoff = Backoff::until(&deadline);
        loop {
            match self.engine.inner.store.tenant(self.fleet.org_id).change_fleet(change.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::error!(fleet = %self.fleet.id, %error, "a change of a fleet could not be recorded");
                    if !backoff.goes_on() {
                        return Err(Unrecorded);
                    }
                    backoff.wait().await;
                }
            }
        }
    }
}

/// The server's deadline has passed.
struct Unrecorded;

/// Never, without a time.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Never, when nobody waits for a turn.
async fn given(turn: &mut Option<BoxFuture<'static, Place>>) -> Place {
    match turn {
        Some(turn) => turn.await,
        None => std::future::pending().await,
    }
}
