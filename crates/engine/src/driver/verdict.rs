//! What a session's run comes to.

use backend::SandboxLimit;
use model::phase::Verdict;
use wire::{FaultCode, KillReason};

use super::{Driver, drained, supervise::Decided};
use crate::view;

impl Driver {
    /// `exceeded` is what the host's accounting says.
    pub(super) fn verdict(&self, decided: Decided, exceeded: Option<SandboxLimit>) -> Verdict {
        match (decided, exceeded) {
            (Decided::Exceeded(limit), _) | (Decided::Exited(_) | Decided::Lost(_), Some(limit)) => {
                Verdict::Quota(reason(limit))
            }
            (Decided::Exited(exit_code), None) => Verdict::Exited { exit_code },
            (Decided::Quota(reason), _) => Verdict::Quota(reason),
            (Decided::NotPut, Some(SandboxLimit::Disk)) => Verdict::Quota(KillReason::DiskExceeded),
            (Decided::NotPut, _) => Verdict::Faulted(view::fault(
                FaultCode::SandboxFailed,
                "a file could not be put into the working directory",
            )),
            (Decided::Cancelled(by), _) => Verdict::Cancelled { by },
            (Decided::Drained, _) => Verdict::Faulted(drained()),
            (Decided::CutOff, _) => Verdict::Faulted(view::fault(
                FaultCode::GatewayLost,
                "the session's gateway ended before the session did",
            )),
            (Decided::Violation(error), _) => {
                self.log_failure("protocol", &error);
                Verdict::Faulted(view::fault(
                    FaultCode::ProtocolViolation,
                    "the runner in the sandbox broke the protocol",
                ))
            }
            (Decided::Lost(detail), None) => Verdict::Faulted(view::fault(FaultCode::SandboxLost, detail)),
        }
    }
}

fn reason(limit: SandboxLimit) -> KillReason {
    match limit {
        SandboxLimit::Cpu => KillReason::CpuExceeded,
        SandboxLimit::Memory => KillReason::MemoryExceeded,
        SandboxLimit::Pids => KillReason::PidsExceeded,
        SandboxLimit::Disk => KillReason::DiskExceeded,
    }
}
