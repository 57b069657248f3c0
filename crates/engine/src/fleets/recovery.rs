//! Fleets that an earlier process left: their members' sessions have been ended and told truthfully by then, and those that
//! waited go on.

use std::sync::Arc;

use model::{
    access::{Caller, Subject},
    fleet,
};
use store::{MemberFilter, StoreError};
use wire::{Fleet, FleetCounts, FleetMember, FleetUsage, MemberPhase, Role};

use super::{hub::FleetHub, run};
use crate::Engine;

/// Members that are read at once.
const PAGE: u32 = 500;

/// Gives every unfinished fleet a task again.
pub(crate) async fn resume(engine: &Engine) -> Result<(), StoreError> {
    for fleet in engine.inner.store.system().unfinished_fleets().await? {
        let id = fleet.id;
        let (fleet, members) = standing(engine, fleet).await?;
        let (queued, total) = (fleet.counts.queued, fleet.counts.total);
        tracing::warn!(fleet = %id, queued, total, "an earlier process left a fleet; it goes on with what waits");
        // A fleet goes on for whoever asked for it. Sessions show the name alone.
        let subject = fleet.created_by.parse().unwrap_or(Subject::Operator);
        let caller = Caller { org: fleet.org_id, subject, role: Role::Developer, narrowed: None };
        let hub = Arc::new(FleetHub::new(fleet.clone(), engine.inner.clock.now()));
        engine.inner.fleets.restore(Arc::clone(&hub));
        run::start(engine, caller, hub, run::Standing::new(fleet, members));
    }
    Ok(())
}

/// What its members are, and what they have used.
async fn standing(engine: &Engine, mut fleet: Fleet) -> Result<(Fleet, Vec<MemberPhase>), StoreError> {
    let tenant = engine.inner.store.tenant(fleet.org_id);
    let mut filter = MemberFilter { fleet: fleet.id, cursor: None, limit: PAGE, phase: None };
    let mut members = Vec::new();
    let mut used = FleetUsage::default();
    loop {
        let page = tenant.fleet_members(filter.clone()).await?;
        for FleetMember { phase, usage, started_at, .. } in page.items {
            members.push(phase);
            let usage = usage.unwrap_or_default();
            used.cpu_ms = used.cpu_ms.saturating_add(usage.cpu_ms);
            used.wall_ms = used.wall_ms.saturating_add(usage.wall_ms);
            used.egress_bytes = used.egress_bytes.saturating_add(usage.egress_bytes);
            fleet.started_at = match (fleet.started_at, started_at) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        match page.next_cursor {
            Some(cursor) => filter.cursor = Some(cursor),
            None => break,
        }
    }
    used.binding_calls = tenant.fleet_binding_calls(fleet.id).await?;
    fleet.used = used;
    fleet.counts = fleet::count(members.iter().copied());
    fleet.phase = under_way(&fleet, &fleet.counts);
    Ok((fleet, members))
}

/// Its end is shown once it is recorded, also when nothing of it is left to run.
fn under_way(fleet: &Fleet, counts: &FleetCounts) -> wire::FleetPhase {
    let phase = fleet::phase(counts, fleet.completion, fleet.reason);
    if phase.is_terminal() { wire::FleetPhase::Running } else { phase }
}
