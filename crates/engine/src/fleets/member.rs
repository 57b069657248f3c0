//! One member of a fleet whose turn has come: its session is made like any other, and followed until nothing of it is left.

use std::{pin::pin, sync::Arc};

use model::{
    access::Caller,
    fleet::{MemberRecord, member_request},
    limits::FLOOR,
};
use serde_json::json;
use store::{FleetChange, MemberError, NewSession, Seat, Task};
use tokio::sync::{mpsc, watch};
use wire::{CreateSession, FaultCode, FleetEndReason, JsonText, Session, SessionFault};

use super::{hub::on_behalf_of, run::Event};
use crate::{CreateError, Engine, admission::Place, create::Prepared, driver, driver::Backoff, live::Live, view};

/// A member's task.
pub(super) struct Member {
    pub(super) engine: Engine,
    pub(super) caller: Caller,
    pub(super) seat: Seat,
    /// What is left of the fleet's budget of CPU time, if it has one.
    pub(super) cpu_left: Option<u64>,
    /// Why the fleet ends, once it does.
    pub(super) ended_by: watch::Receiver<Option<FleetEndReason>>,
    pub(super) told: mpsc::Sender<Event>,
}

/// Why there is no session.
enum NotStarted {
    /// The fleet ended first.
    Skipped,
    /// It cannot be.
    Fault(SessionFault),
    /// The server is shutting down; the member waits for its next start.
    Left,
}

impl Member {
    /// Gives the member's index when it is over.
    pub(super) async fn run(mut self, place: Place) -> u32 {
        let index = self.seat.index;
        match self.start(place).await {
            Ok(live) => self.follow(&live).await,
            Err(NotStarted::Skipped) => {
                let ended_by = *self.ended_by.borrow();
                self.tell(MemberRecord { index, ended_by, ..MemberRecord::default() }).await;
            }
            Err(NotStarted::Fault(fault)) => self.fault(None, fault).await,
            Err(NotStarted::Left) => {}
        }
        index
    }

    /// Makes the session, as soon as the store answers.
    async fn start(&self, place: Place) -> Result<Arc<Live>, NotStarted> {
        let inner = &self.engine.inner;
        let deadline = inner.deadline.clone();
        let mut backoff = Backoff::until(&deadline);
        let mut place = Some(place);
        loop {
            if inner.draining.is_cancelled() {
                return Err(NotStarted::Left);
            }
            if self.ended_by.borrow().is_some() {
                return Err(NotStarted::Skipped);
            }
            match self.try_start(&mut place).await {
                Ok(started) => return started,
                Err(error) => {
                    tracing::error!(fleet = %self.seat.fleet, index = self.seat.index, %error, "a member could not be recorded");
                    backoff.wait().await;
                }
            }
        }
    }

    /// One try; fails with the store alone.
    async fn try_start(&self, place: &mut Option<Place>) -> Result<Result<Arc<Live>, NotStarted>, store::StoreError> {
        let inner = &self.engine.inner;
        let tenant = inner.store.tenant(self.caller.org);
        let Some(task) = tenant.fleet_task(self.seat).await? else { return Ok(Err(NotStarted::Skipped)) };
        let request = match self.request(&task) {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(fleet = %self.seat.fleet, %error, "a recorded request cannot be read");
                return Ok(Err(fault("its request, as recorded, cannot be read")));
            }
        };
        let prepared = match self.engine.prepare(&self.caller, request, &[], Vec::new()).await {
            Ok(prepared) => prepared,
            Err(CreateError::Store(error)) => return Err(error),
            Err(error) => return Ok(Err(refused(&error))),
        };
        let also = json!({ "fleet": self.seat.fleet, "member": self.seat.index });
        let (session, draft) = self.engine.pending(&self.caller, &prepared, &also);
        let webhook_url = prepared.webhook_url();
        let new =
            NewSession { session: session.clone(), idempotency: None, drafts: vec![draft], webhook_url, firing: None };
        // Entered before: whoever finds it in the store finds it here too, to watch it and to end it.
        let live = inner.registry.enter(&session);
        let events = match tenant.create_member(self.seat, new).await {
            Ok(events) => events,
            Err(error) => {
                inner.registry.forget(session.id);
                return match error {
                    MemberError::NotQueued => Ok(Err(NotStarted::Skipped)),
                    MemberError::Store(error) => Err(error),
                };
            }
        };
        metrics::counter!("enclave_sessions_created_total", "backend" => session.backend.clone()).increment(1);
        if let Some(place) = place.take() {
            let Prepared { backend, spec, .. } = prepared;
            let given = driver::Given { backend, spec, uploads: None, place };
            driver::start(inner, Arc::clone(&live), session, given, events);
        }
        Ok(Ok(live))
    }

    /// What it runs.
    fn request(&self, task: &Task) -> Result<CreateSession, serde_json::Error> {
        let mut request = match &task.template {
            Some(template) => {
                let input: JsonText = serde_json::from_str(&task.task)?;
                member_request(&serde_json::from_str(template)?, Some(&input))
            }
            None => serde_json::from_str(&task.task)?,
        };
        if let Some(left) = self.cpu_left {
            let least = FLOOR.cpu_time_ms.unwrap_or(0);
            let own = request.limits.cpu_time_ms.unwrap_or(u64::MAX);
            request.limits.cpu_time_ms = Some(own.min(left.max(least)));
        }
        Ok(request)
    }

    /// Tells what becomes of the session, and ends it when the fleet does.
    async fn follow(&mut self, live: &Arc<Live>) {
        let (mut progress, mut spent) = (live.progress.subscribe(), live.spent.subscribe());
        let mut gone = pin!(live.hub.ended());
        let mut shown = None;
        let mut cancelled = false;
        loop {
            let session = Arc::clone(&progress.borrow_and_update().session);
            if shown != Some(session.phase) {
                shown = Some(session.phase);
                if spent.has_changed().unwrap_or(false) {
                    self.spent(&mut spent).await;
                }
                self.show(&session).await;
            }
            if session.torn_down_at.is_some() {
                return;
            }
            tokio::select! {
                biased;
                reason = ending(&mut self.ended_by), if !cancelled => {
                    cancelled = true;
                    live.cancel(on_behalf_of(self.seat.fleet, reason));
                }
                // The senders are in `live`.
                _ = progress.changed() => {}
                _ = spent.changed() => self.spent(&mut spent).await,
                () = &mut gone => {
                    let session = Arc::clone(&progress.borrow().session);
                    return self.lost(&session).await;
                }
            }
        }
    }

    async fn spent(&self, spent: &mut watch::Receiver<crate::live::Spent>) {
        let now = *spent.borrow_and_update();
        self.send(Event::Spent(self.seat.index, now)).await;
    }

    /// The session's driver has nothing more to say: its end is recorded, or the server's deadline has passed, or the end
    /// cannot be recorded at all.
    async fn lost(&self, session: &Session) {
        if session.outcome.is_some() {
            self.show(session).await;
        } else if !self.engine.inner.deadline.is_cancelled() {
            let fault = view::fault(FaultCode::Internal, "what became of it could not be recorded");
            self.fault(Some(session.clone()), fault).await;
        }
    }

    async fn show(&self, session: &Session) {
        let ended_by = *self.ended_by.borrow();
        self.tell(MemberRecord { index: self.seat.index, session: Some(session.clone()), ended_by, fault: None }).await;
    }

    /// Records that there will be no session, or none that is known of.
    async fn fault(&self, session: Option<Session>, fault: SessionFault) {
        let deadline = self.engine.inner.deadline.clone();
        let mut backoff = Backoff::until(&deadline);
        let change = FleetChange::Fault { seat: self.seat, fault: fault.clone() };
        while let Err(error) = self.engine.inner.store.tenant(self.caller.org).change_fleet(change.clone()).await {
            tracing::error!(fleet = %self.seat.fleet, %error, "a fault is not recorded");
            if !backoff.goes_on() {
                return;
            }
            backoff.wait().await;
        }
        let ended_by = None;
        self.tell(MemberRecord { index: self.seat.index, session, ended_by, fault: Some(fault) }).await;
    }

    async fn tell(&self, record: MemberRecord) {
        self.send(Event::Changed(Box::new(record.view()))).await;
    }

    async fn send(&self, event: Event) {
        // A fleet that has finished knows all that it tells.
        let _ = self.told.send(event).await;
    }
}

/// Resolves when the fleet ends.
async fn ending(ended_by: &mut watch::Receiver<Option<FleetEndReason>>) -> FleetEndReason {
    match ended_by.wait_for(Option::is_some).await.map(|reason| *reason) {
        Ok(Some(reason)) => reason,
        // The fleet's task has gone: its members end by themselves.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

fn fault(detail: &str) -> NotStarted {
    NotStarted::Fault(view::fault(FaultCode::NotStarted, detail))
}

/// What was right when the fleet was admitted is so no more.
fn refused(error: &CreateError) -> NotStarted {
    match error {
        CreateError::Invalid(faults)
        | CreateError::NotSupported(faults)
        | CreateError::NotEnforceable { faults, .. } => {
            let told: Vec<_> = faults.iter().map(|fault| format!("{} {}", fault.field, fault.message)).collect();
            fault(&format!("when its turn came, it could not be admitted: {}", told.join("; ")))
        }
        CreateError::Sealed { binding, .. } => fault(&format!("the secret of {binding} cannot be opened")),
        CreateError::Draining => NotStarted::Left,
        CreateError::Busy { .. }
        | CreateError::IdempotencyConflict
        | CreateError::NotFired(_)
        | CreateError::Store(_) => fault("it could not be admitted"),
    }
}
