//! Failures to order: which step of the simulator fails, hangs or leaves something behind, and how often.

use std::{
    future, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A step that can be told to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Making the sandbox; nothing exists yet when it fails.
    Prepare,
    /// The runner's hello: failing is a runner that goes away without it, hanging is one that stays silent.
    Handshake,
    /// Putting limits into force.
    Assign,
    /// Waiting for the end.
    Wait,
    /// Looking at usage.
    Observe,
    /// Killing.
    Kill,
    /// Removing.
    Destroy,
    /// Listing.
    List,
}

/// What was ordered. Clones share one plan, so a test keeps a clone of what it gave to the simulator.
#[derive(Clone, Debug, Default)]
pub struct FailurePlan {
    plan: Arc<Mutex<Plan>>,
}

#[derive(Debug, Default)]
struct Plan {
    /// Failures and hangs still to come, by [`Step`].
    ordered: [(u32, u32); 8],
    residues: u32,
    dies_after: Option<u64>,
}

impl FailurePlan {
    /// The next `times` tries of this step fail.
    pub fn fail_next(&self, step: Step, times: u32) {
        self.plan().ordered[step as usize].0 = times;
    }

    /// The next try of this step never comes back: its future has to be dropped.
    pub fn hang_next(&self, step: Step) {
        self.plan().ordered[step as usize].1 += 1;
    }

    /// The next `times` removals of a sandbox that exists, also after a failed boot, end its processes, but report that
    /// something is left.
    pub fn residue_next(&self, times: u32) {
        self.plan().residues = times;
    }

    /// Runners of sandboxes prepared from now on go away after this many frames, hello included.
    pub fn die_after_frames(&self, frames: u64) {
        self.plan().dies_after = Some(frames);
    }

    /// Takes back everything that was ordered. What already hangs goes on hanging.
    pub fn clear(&self) {
        *self.plan() = Plan::default();
    }

    /// Does what was ordered for this step.
    pub(super) async fn pass(&self, step: Step) -> Result<(), io::Error> {
        match self.meet(step) {
            Met::Nothing => Ok(()),
            Met::Failure => Err(io::Error::other("failure to order")),
            Met::Hang => future::pending().await,
        }
    }

    pub(super) fn meet(&self, step: Step) -> Met {
        let mut plan = self.plan();
        let (failures, hangs) = &mut plan.ordered[step as usize];
        if *hangs > 0 {
            *hangs -= 1;
            Met::Hang
        } else if *failures > 0 {
            *failures -= 1;
            Met::Failure
        } else {
            Met::Nothing
        }
    }

    /// Whether this removal leaves something.
    pub(super) fn leaves_residue(&self) -> bool {
        let mut plan = self.plan();
        let leaves = plan.residues > 0;
        plan.residues = plan.residues.saturating_sub(1);
        leaves
    }

    pub(super) fn dies_after(&self) -> Option<u64> {
        self.plan().dies_after
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was ordered for a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    Nothing,
    Failure,
    Hang,
}
