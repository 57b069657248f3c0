//! The stream of a fleet: from its hub while it is under way, from the store behind that.

use std::{collections::VecDeque, sync::Arc};

use futures::stream;
use model::access::Caller;
use store::{MemberFilter, Tenant};
use wire::{Fleet, FleetEnd, FleetFrame, FleetId, FleetMember, FleetProgress};

use super::hub::numbered;
use crate::{
    Engine, ReadError,
    hub::{Frame, FrameStream, MAX_SEQ},
};

/// Members that are read from the store at once.
const PAGE: u32 = 500;

impl Engine {
    /// The fleet's frames behind number `after`, and those to come.
    pub async fn fleet_stream(&self, caller: &Caller, id: FleetId, after: u64) -> Result<FrameStream, ReadError> {
        if let Some(hub) = self.inner.fleets.get(caller.org, id)
            && after < MAX_SEQ
        {
            return Ok(hub.subscribe(after));
        }
        let fleet = self.fleet(caller, id).await?;
        if after >= MAX_SEQ {
            return Ok(Box::pin(stream::empty()));
        }
        Ok(stored(self.inner.store.tenant(caller.org), fleet, after))
    }
}

/// The stream of a fleet that this process does not hold: what each member is, how far the fleet is, and the end. Its
/// numbers are the largest there are, so that a reader of an earlier stream gets all of it, and one that was cut in the
/// middle of this one goes on.
struct Stored {
    tenant: Arc<dyn Tenant>,
    fleet: Fleet,
    after: u64,
    members: VecDeque<FleetMember>,
    cursor: Option<String>,
    left: Left,
}

enum Left {
    Members,
    Progress,
    End,
    Nothing,
}

fn stored(tenant: Arc<dyn Tenant>, fleet: Fleet, after: u64) -> FrameStream {
    let start = Stored { tenant, fleet, after, members: VecDeque::new(), cursor: None, left: Left::Members };
    Box::pin(stream::unfold(start, |mut stored| async move {
        loop {
            let frame = stored.next().await?;
            if frame.seq > stored.after {
                return Some((frame, stored));
            }
        }
    }))
}

impl Stored {
    async fn next(&mut self) -> Option<Frame> {
        let first = MAX_SEQ - u64::from(self.fleet.counts.total) - 1;
        loop {
            if let Some(member) = self.members.pop_front() {
                let seq = first + u64::from(member.index);
                return Some(numbered(seq, &FleetFrame::Member(Box::new(member))));
            }
            match self.left {
                Left::Members => {
                    let filter =
                        MemberFilter { fleet: self.fleet.id, cursor: self.cursor.take(), limit: PAGE, phase: None };
                    // A store that fails ends the stream: its reader comes back.
                    let page = self.tenant.fleet_members(filter).await.ok()?;
                    self.members = page.items.into();
                    self.cursor = page.next_cursor;
                    if self.cursor.is_none() {
                        self.left = Left::Progress;
                    }
                }
                Left::Progress => {
                    self.left = if self.fleet.phase.is_terminal() { Left::End } else { Left::Nothing };
                    let Fleet { phase, reason, counts, used, .. } = self.fleet;
                    let progress = FleetProgress { phase, reason, counts, used };
                    return Some(numbered(MAX_SEQ - 1, &FleetFrame::Progress(progress)));
                }
                Left::End => {
                    self.left = Left::Nothing;
                    return Some(numbered(MAX_SEQ, &FleetFrame::End(FleetEnd { phase: self.fleet.phase })));
                }
                Left::Nothing => return None,
            }
        }
    }
}
