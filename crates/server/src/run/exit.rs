//! What `enclave run` leaves with.

use wire::{KillReason, Outcome, SessionResult};

/// For help and for docs/cli.md.
pub(crate) const TABLE: &str = "\
Exit codes:
  0    the program ended with 0
  1…255  the program ended with that code, or by signal n: 128 + n
  2    the command line is wrong, or the server refused the request
  3    the server cannot be reached, is busy, or there is no backend
  124  wall-clock limit
  125  a fault of the platform, not of the program
  130  cancelled (Ctrl-C)
  137  any other limit
  141  nobody reads stdout any more; the session was cancelled

A program may end with any of these itself; the last line on stderr, and --json, say which it was.";

pub(crate) const REFUSED: u8 = 2;
pub(crate) const UNREACHABLE: u8 = 3;
const WALL_CLOCK: u8 = 124;
pub(crate) const FAULT: u8 = 125;
pub(crate) const CANCELLED: u8 = 130;
pub(crate) const KILLED: u8 = 137;
pub(crate) const CLOSED: u8 = 141;

/// The code that says what became of a session.
pub(crate) fn code(result: &SessionResult) -> u8 {
    match result.outcome {
        Outcome::Succeeded => 0,
        // Only the low byte reaches a parent; what would look like success is failure.
        Outcome::Failed => {
            result.exit_code.and_then(|code| u8::try_from(code & 0xff).ok()).filter(|c| *c != 0).unwrap_or(1)
        }
        Outcome::Killed => match result.kill_reason {
            Some(KillReason::WallClockExceeded) => WALL_CLOCK,
            Some(
                KillReason::CpuExceeded
                | KillReason::MemoryExceeded
                | KillReason::PidsExceeded
                | KillReason::DiskExceeded
                | KillReason::OutputExceeded
                | KillReason::IdleTtlExceeded
                | KillReason::MaxLifetimeExceeded
                | KillReason::TurnBudgetExceeded
                | KillReason::TurnTimeoutExceeded,
            )
            | None => KILLED,
        },
        Outcome::Cancelled => CANCELLED,
        Outcome::Faulted => FAULT,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use wire::Usage;

    use super::*;

    pub(crate) fn result(outcome: Outcome, exit_code: Option<i32>, kill_reason: Option<KillReason>) -> SessionResult {
        SessionResult {
            session_id: "ses_01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
            outcome,
            kill_reason,
            fault: None,
            exit_code,
            result: None,
            stdout_tail: String::new(),
            stdout_truncated: false,
            stdout_tail_offset: 0,
            stderr_tail: String::new(),
            stderr_truncated: false,
            stderr_tail_offset: 0,
            artifacts: vec![],
            artifacts_skipped: vec![],
            usage: Usage::default(),
            denials: vec![],
        }
    }

    #[test]
    fn the_code_follows_the_outcome() {
        for (outcome, exit, reason, expected) in [
            (Outcome::Succeeded, Some(0), None, 0),
            (Outcome::Failed, Some(7), None, 7),
            (Outcome::Failed, Some(139), None, 139),
            (Outcome::Failed, Some(256), None, 1),
            (Outcome::Failed, Some(-1), None, 255),
            (Outcome::Failed, None, None, 1),
            (Outcome::Killed, None, Some(KillReason::WallClockExceeded), 124),
            (Outcome::Killed, None, Some(KillReason::MemoryExceeded), 137),
            (Outcome::Killed, None, None, 137),
            (Outcome::Cancelled, None, None, 130),
            (Outcome::Faulted, None, None, 125),
        ] {
            assert_eq!(code(&result(outcome, exit, reason)), expected, "{outcome:?} {exit:?} {reason:?}");
        }
    }
}
