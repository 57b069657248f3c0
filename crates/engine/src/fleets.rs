//! Fleets: many sessions as one unit.
//!
//! One task owns one fleet, as a driver owns a session ([`run`]): it asks for one turn at a time, starts the next member with
//! it like any other session, and adds up what becomes of them. What everybody else sees is in [`hub`]; what a member is
//! stands in its session's row alone. A fleet that an earlier process left goes on with the members that wait
//! ([`recovery`]).

mod create;
mod hub;
mod member;
mod recovery;
mod run;
mod stream;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::access::Caller;
use store::{FleetFilter, MemberFilter};
use wire::{Fleet, FleetId, FleetMemberPage, FleetPage, FleetResultPage, OrgId};

pub use create::CreateFleetRequest;

use crate::{CreateError, Engine, ListError, ReadError};
use hub::FleetHub;

pub(crate) use recovery::resume;

/// Fleets of one org that may be under way: each holds a row of memory for every member.
const FLEETS_OF_AN_ORG: usize = 32;
/// The same, over all orgs.
const FLEETS: usize = 256;
/// When a refused caller should come again.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// How long a deletion waits for the members to end before it answers with the fleet as it is.
const CANCEL_PATIENCE: Duration = Duration::from_secs(10);

/// Fleets under way.
#[derive(Debug, Default)]
pub(crate) struct Fleets {
    held: Mutex<HashMap<FleetId, Arc<FleetHub>>>,
}

impl Fleets {
    /// Enters a fleet that is about to get its task, if there is room for it.
    fn enter(&self, hub: Arc<FleetHub>) -> Result<(), CreateError> {
        let mut held = self.held();
        let of_org = held.values().filter(|other| other.org == hub.org).count();
        if held.len() >= FLEETS || of_org >= FLEETS_OF_AN_ORG {
            return Err(CreateError::Busy { retry_after: RETRY_AFTER });
        }
        held.insert(hub.id, hub);
        Ok(())
    }

    /// Enters one that is there already, whether or not there is room.
    fn restore(&self, hub: Arc<FleetHub>) {
        self.held().insert(hub.id, hub);
    }

    /// The fleet, if it is under way and belongs to `org`.
    fn get(&self, org: OrgId, id: FleetId) -> Option<Arc<FleetHub>> {
        self.held().get(&id).filter(|hub| hub.org == org).map(Arc::clone)
    }

    fn leave(&self, id: FleetId) {
        self.held().remove(&id);
    }

    fn held(&self) -> MutexGuard<'_, HashMap<FleetId, Arc<FleetHub>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// The fleet.
    pub async fn fleet(&self, caller: &Caller, id: FleetId) -> Result<Fleet, ReadError> {
        if let Some(hub) = self.inner.fleets.get(caller.org, id) {
            return Ok(hub.fleet());
        }
        self.inner.store.tenant(caller.org).fleet(id).await?.ok_or(ReadError::NotFound)
    }

    /// Fleets, newest first.
    pub async fn fleets(&self, caller: &Caller, filter: FleetFilter) -> Result<FleetPage, ListError> {
        let mut page = self.inner.store.tenant(caller.org).fleets(filter).await?;
        for fleet in &mut page.items {
            if let Some(hub) = self.inner.fleets.get(caller.org, fleet.id) {
                *fleet = hub.fleet();
            }
        }
        Ok(page)
    }

    /// Ends the fleet if it has not ended: what runs is cancelled, what waits never starts. Waits a while until nothing of
    /// it runs, and gives it as it is then.
    pub async fn cancel_fleet(&self, caller: &Caller, id: FleetId) -> Result<Fleet, ReadError> {
        let Some(hub) = self.inner.fleets.get(caller.org, id) else { return self.fleet(caller, id).await };
        hub.cancel(caller.subject.to_string());
        // A slow end is no failure: the answer then shows a fleet that is still ending.
        let _ = tokio::time::timeout(CANCEL_PATIENCE, hub.over()).await;
        self.fleet(caller, id).await
    }

    /// The fleet's members, in the order of the request.
    pub async fn fleet_members(
        &self,
        caller: &Caller,
        filter: MemberFilter,
    ) -> Result<FleetMemberPage, FleetListError> {
        self.known(caller, filter.fleet).await?;
        Ok(self.inner.store.tenant(caller.org).fleet_members(filter).await.map_err(ListError::from)?)
    }

    /// What they gave back.
    pub async fn fleet_results(
        &self,
        caller: &Caller,
        filter: MemberFilter,
    ) -> Result<FleetResultPage, FleetListError> {
        self.known(caller, filter.fleet).await?;
        Ok(self.inner.store.tenant(caller.org).fleet_results(filter).await.map_err(ListError::from)?)
    }

    async fn known(&self, caller: &Caller, id: FleetId) -> Result<(), FleetListError> {
        self.fleet(caller, id).await.map(drop).map_err(|error| match error {
            ReadError::NotFound => FleetListError::NotFound,
            ReadError::Store(error) => FleetListError::List(ListError::Store(error)),
        })
    }
}

/// Why a list of a fleet could not be given.
#[derive(Debug, thiserror::Error)]
pub enum FleetListError {
    /// The fleet does not exist, or belongs to another org.
    #[error("not found")]
    NotFound,
    /// The list could not be given.
    #[error(transparent)]
    List(#[from] ListError),
}
