//! The step between the end of a program and the end of its sandbox: what it left is collected, once nothing of it runs.
//!
//! Where the host has decided the end, the runner is told to stop the program first. Whatever does not go as it should in
//! there costs artifacts, and nothing else: the sandbox is ended by a deadline, and what was not collected is told.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use backend::{
    Observation, SandboxId,
    channel::{Receiver, Sender},
};
use protocol::{GuestFrame, HostFrame};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use wire::SkippedBecause;

use super::{
    Driver,
    supervise::{Collected, Decided},
};
use crate::artifacts::collect::{Collector, Kept, taken};

/// How long collecting may take: a gigabyte, from a disk in memory to one that is none.
const PATIENCE: Duration = Duration::from_mins(1);
/// The same when somebody waits for the session to be gone.
const CANCELLED_PATIENCE: Duration = Duration::from_secs(5);
/// How long the runner may take to end a program.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// The pipe to the runner, and what is to be sent on it.
pub(super) struct Pipe<'a> {
    pub(super) sender: &'a mut Sender,
    pub(super) receiver: &'a mut Receiver,
    pub(super) outgoing: &'a mut mpsc::Receiver<HostFrame>,
}

impl Driver {
    /// What the sandbox used, and which limit it went over, as far as the backend can say.
    pub(super) async fn observed(&self, id: &SandboxId) -> Observation {
        self.inner.observe(self.backend.as_ref(), id).await.unwrap_or_else(|error| {
            self.log_failure("observe", &error);
            Observation::default()
        })
    }

    /// Whether the session wants something of its files.
    pub(super) fn wants_artifacts(&self) -> bool {
        !self.spec.artifacts.is_empty() && self.inner.config.artifacts.is_some()
    }

    /// How long the backend may leave a sandbox that is over a limit to this driver.
    pub(super) fn grace(&self) -> Duration {
        if self.wants_artifacts() { STOP_PATIENCE + PATIENCE } else { Duration::ZERO }
    }

    /// What is kept where nothing can be collected.
    pub(super) fn nothing_kept(&self) -> Kept {
        if self.wants_artifacts() { nothing() } else { Kept::default() }
    }

    /// Collects what the program left.
    pub(super) async fn collect(&mut self, decided: &Decided, mut pipe: Pipe<'_>, collected: &mut Collected) -> Kept {
        let Some(depot) = self.inner.config.artifacts.as_ref().map(|keep| keep.depot.clone()) else {
            return Kept::default();
        };
        let (runs, patience) = match decided {
            Decided::Exited(_) => (false, PATIENCE),
            // One that its backend has ended already does not answer.
            Decided::Exceeded(limit) if limit.leaves_grace() => (true, PATIENCE),
            Decided::Quota(_) | Decided::CutOff => (true, PATIENCE),
            Decided::Cancelled(_) => (true, CANCELLED_PATIENCE),
            // The sandbox is gone, or nothing that it says is of any worth.
            Decided::Exceeded(_) | Decided::NotPut | Decided::Drained | Decided::Violation(_) | Decided::Lost(_) => {
                return nothing();
            }
        };
        if runs && !self.stop(&mut pipe, collected).await {
            return nothing();
        }
        let kept = Arc::<Mutex<Kept>>::default();
        let collector = Collector {
            desk: Arc::clone(&self.live.desk),
            depot,
            session: self.session.id,
            globs: self.spec.artifacts.clone(),
            disk_bytes: self.spec.limits.disk_bytes,
            kept: Arc::clone(&kept),
        };
        let (deadline, live) = (self.inner.deadline.clone(), Arc::clone(&self.live));
        let until = Instant::now() + patience;
        let work = collector.run();
        let carry = self.carry(&mut pipe);
        let because = tokio::select! {
            biased;
            () = deadline.cancelled() => Some(SkippedBecause::Late),
            _ = live.cancelled(), if !matches!(decided, Decided::Cancelled(_)) => Some(SkippedBecause::Late),
            () = tokio::time::sleep_until(until) => Some(SkippedBecause::Late),
            () = work => None,
            () = carry => Some(SkippedBecause::SandboxGone),
        };
        let mut kept = taken(&kept);
        if let Some(because) = because {
            kept.skip("**", because);
        }
        kept
    }

    /// Ends the program; whether the runner says that it has.
    async fn stop(&self, pipe: &mut Pipe<'_>, collected: &mut Collected) -> bool {
        let until = Instant::now() + STOP_PATIENCE;
        if !matches!(timeout_at(until, pipe.sender.send(&HostFrame::Stop)).await, Ok(Ok(()))) {
            return false;
        }
        loop {
            match timeout_at(until, pipe.receiver.next()).await {
                Ok(Ok(Some(GuestFrame::Exited { .. }))) => return true,
                Ok(Ok(Some(
                    frame @ (GuestFrame::Output { .. }
                    | GuestFrame::Result { .. }
                    | GuestFrame::Turned(_)
                    | GuestFrame::File(_)
                    | GuestFrame::Terminal(_)),
                ))) => {
                    // What would decide the end comes after it was decided.
                    let _ = self.take(frame, collected);
                }
                Ok(Ok(Some(GuestFrame::Exceeded { .. }))) => {}
                Ok(
                    Ok(
                        Some(
                            GuestFrame::Hello { .. }
                            | GuestFrame::Started { .. }
                            | GuestFrame::Fault { .. }
                            | GuestFrame::NotPut { .. },
                        )
                        | None,
                    )
                    | Err(_),
                )
                | Err(_) => return false,
            }
        }
    }

    /// Carries calls and answers. Ends when the runner is of no use any more.
    async fn carry(&self, pipe: &mut Pipe<'_>) {
        loop {
            tokio::select! {
                frame = pipe.outgoing.recv() => {
                    let Some(frame) = frame else { return };
                    if pipe.sender.send(&frame).await.is_err() {
                        return;
                    }
                }
                frame = pipe.receiver.next() => match frame {
                    Ok(Some(GuestFrame::File(reply))) => {
                        if self.live.desk.answer(reply).is_err() {
                            return;
                        }
                    }
                    Ok(Some(
                        GuestFrame::Hello { .. }
                        | GuestFrame::Started { .. }
                        | GuestFrame::Output { .. }
                        | GuestFrame::Result { .. }
                        | GuestFrame::Exceeded { .. }
                        | GuestFrame::Exited { .. }
                        | GuestFrame::Turned(_)
                        | GuestFrame::Terminal(_)
                        | GuestFrame::Fault { .. }
                        | GuestFrame::NotPut { .. },
                    ) | None)
                    | Err(_) => return,
                },
            }
        }
    }
}

fn nothing() -> Kept {
    let mut kept = Kept::default();
    kept.skip("**", SkippedBecause::SandboxGone);
    kept
}
