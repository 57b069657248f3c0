//! The verdict in words, and as data.

use client::{Client, ClientError};
use serde_json::{Value, json};
use wire::{KillReason, LimitsView, Outcome, Session, SessionResult};

/// The line that says what became of the session, and what saw to it.
pub(crate) fn verdict(session: &Session, result: &SessionResult) -> String {
    let usage = &result.usage;
    let used = format!("{} ms, cpu {} ms, peak {}", usage.wall_ms, usage.cpu_ms, size(usage.memory_peak_bytes));
    let on = format!("{} ({})", session.backend, session.isolation.as_str());
    match result.outcome {
        Outcome::Succeeded => format!("succeeded · {used} · {on}"),
        Outcome::Failed => match result.exit_code {
            Some(code) => format!("failed, exit code {code} · {used} · {on}"),
            None => format!("failed · {used} · {on}"),
        },
        Outcome::Killed => match result.kill_reason {
            Some(reason) => {
                let limit = limit(reason, &session.limits);
                format!(
                    "killed, {}{limit} · {used} · {on} · enforced by {}",
                    reason.as_str(),
                    mechanism(reason, session)
                )
            }
            None => format!("killed · {used} · {on}"),
        },
        Outcome::Cancelled => format!("cancelled · {used} · {on}"),
        Outcome::Faulted => match &result.fault {
            Some(fault) => {
                let code = json!(fault.code);
                format!("faulted, {}: {} · {used} · {on}", code.as_str().unwrap_or("unknown"), fault.detail)
            }
            None => format!("faulted · {used} · {on}"),
        },
    }
}

/// The one object of `--json`: the result, with the session beside it.
pub(super) fn object(session: &Session, result: &SessionResult) -> Value {
    let mut object = json!(result);
    object["session"] = json!(session);
    object
}

/// The same for a session that there is none of.
pub(super) fn error_object(error: &ClientError) -> Value {
    match error.problem() {
        Some(problem) => json!({ "error": problem }),
        None => json!({ "error": { "title": "There is no answer", "detail": error.chain() } }),
    }
}

/// What a server said, every fault of it; or that there is none, and where.
pub(crate) fn told(client: &Client, error: &ClientError) -> Vec<String> {
    match error {
        ClientError::Transport(_) => vec![format!("{}: {}", client.base_url(), error.chain())],
        ClientError::BaseUrl { .. }
        | ClientError::Key
        | ClientError::Path(_)
        | ClientError::File { .. }
        | ClientError::Problem(_)
        | ClientError::Unexpected { .. }
        | ClientError::Decode { .. }
        | ClientError::TooLarge { .. }
        | ClientError::StreamLost { .. } => error_lines(error),
    }
}

/// An error in words: every field that is wrong, and what to quote when asking about it.
fn error_lines(error: &ClientError) -> Vec<String> {
    let Some(problem) = error.problem() else { return vec![error.chain()] };
    let mut lines = vec![format!("{} ({}): {}", problem.title, problem.code.as_str(), problem.detail)];
    lines.extend(problem.errors.iter().map(|fault| format!("  {}: {}", fault.field, fault.message)));
    if problem.status >= 500 {
        lines.push(format!("  request id {}", problem.request_id));
    }
    lines
}

fn limit(reason: KillReason, limits: &LimitsView) -> String {
    let said = match reason {
        KillReason::CpuExceeded => limits.cpu_time_ms.map(|ms| format!("{ms} ms")),
        KillReason::MemoryExceeded => Some(size(limits.memory_bytes)),
        KillReason::WallClockExceeded => Some(format!("{} ms", limits.wall_clock_ms)),
        KillReason::PidsExceeded => Some(limits.pids.to_string()),
        KillReason::DiskExceeded => Some(size(limits.disk_bytes)),
        KillReason::OutputExceeded => Some(size(limits.output_bytes)),
        // Bounds of a conversation are in the session, beside its limits.
        KillReason::IdleTtlExceeded
        | KillReason::MaxLifetimeExceeded
        | KillReason::TurnBudgetExceeded
        | KillReason::TurnTimeoutExceeded => None,
    };
    said.map_or_else(String::new, |limit| format!(" (limit {limit})"))
}

fn mechanism(reason: KillReason, session: &Session) -> &str {
    let enforcement = &session.enforcement;
    match reason {
        KillReason::CpuExceeded => &enforcement.cpu,
        KillReason::MemoryExceeded => &enforcement.memory,
        KillReason::PidsExceeded => &enforcement.pids,
        KillReason::DiskExceeded => &enforcement.disk,
        KillReason::OutputExceeded => "the server's count of what leaves the sandbox",
        KillReason::WallClockExceeded
        | KillReason::IdleTtlExceeded
        | KillReason::MaxLifetimeExceeded
        | KillReason::TurnBudgetExceeded
        | KillReason::TurnTimeoutExceeded => &enforcement.wall_clock,
    }
}

fn size(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30_u32), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift {
            let tenths = (bytes >> (shift - 10)).saturating_mul(10) >> 10;
            let (whole, tenth) = (tenths / 10, tenths % 10);
            return if tenth == 0 { format!("{whole} {unit}") } else { format!("{whole}.{tenth} {unit}") };
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use wire::{ErrorCode, FieldError, Problem};

    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (64 << 20, "64 MiB"), (3 << 29, "1.5 GiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_refusal_names_every_field() {
        let problem = Problem::new(ErrorCode::InvalidRequest, "two fields are wrong")
            .with_errors(vec![FieldError::new("limits.cpu", "too much"), FieldError::new("code", "is empty")]);
        let error = ClientError::Problem(Box::new(problem));
        assert_eq!(
            error_lines(&error),
            [
                "The request is not valid (invalid_request): two fields are wrong",
                "  limits.cpu: too much",
                "  code: is empty"
            ]
        );
        assert_eq!(error_object(&error)["error"]["code"], "invalid_request");
    }
}
