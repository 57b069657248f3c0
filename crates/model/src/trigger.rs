//! Triggers: what may be asked of them. When a schedule fires is in [`schedule`].

pub mod schedule;

use wire::{CreateTrigger, FieldError, Timestamp, Trigger, TriggerKind, UpdateTrigger};

use self::schedule::{NotASchedule, Schedule};

/// Firings of a trigger that may wait for a session of its to end.
pub const MAX_WAITING: u32 = 16;
/// The file in which a call's body reaches the workload.
pub const BODY_FILE: &str = "trigger.json";
/// Bytes of a call's body.
pub const MAX_BODY: usize = 1024 * 1024;
/// Bytes of what a trigger starts, as JSON: pages of triggers hold it.
const MAX_SESSION: usize = 256 * 1024;
/// Longer than anybody spreads a load over.
const MAX_JITTER_MS: u64 = 3_600_000;

/// Every fault of a request for a trigger, but those of its session's content.
pub fn check(request: &CreateTrigger, now: Timestamp) -> Vec<FieldError> {
    let mut faults = Vec::new();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !(1..=64).contains(&request.name.len()) || !request.name.bytes().all(allowed) {
        faults.push(FieldError::new("name", "must be 1 to 64 of letters, digits and . _ -"));
    }
    check_content(&request.kind, &request.session, request.jitter_ms, now, &mut faults);
    faults
}

/// The trigger with a change, or every fault of that, but those of its session's content.
pub fn update(trigger: &Trigger, change: UpdateTrigger, now: Timestamp) -> Result<Trigger, Vec<FieldError>> {
    let mut faults = Vec::new();
    let next = Trigger {
        enabled: change.enabled.unwrap_or(trigger.enabled),
        kind: change.kind.unwrap_or_else(|| trigger.kind.clone()),
        session: change.session.unwrap_or_else(|| trigger.session.clone()),
        overlap: change.overlap.unwrap_or(trigger.overlap),
        jitter_ms: change.jitter_ms.or(trigger.jitter_ms),
        ..trigger.clone()
    };
    if next.kind.as_str() != trigger.kind.as_str() {
        faults.push(FieldError::new("kind.type", "stays what it is; make another trigger"));
    }
    check_content(&next.kind, &next.session, next.jitter_ms, now, &mut faults);
    if faults.is_empty() { Ok(next) } else { Err(faults) }
}

/// The schedule of a trigger that has one.
pub fn schedule_of(kind: &TriggerKind, now: Timestamp) -> Option<Result<Schedule, NotASchedule>> {
    match kind {
        TriggerKind::Schedule { cron, timezone } => Some(Schedule::new(cron, timezone, now)),
        TriggerKind::Webhook => None,
    }
}

fn check_content(
    kind: &TriggerKind,
    session: &wire::CreateSession,
    jitter_ms: Option<u64>,
    now: Timestamp,
    faults: &mut Vec<FieldError>,
) {
    match schedule_of(kind, now) {
        Some(Ok(_)) | None => {}
        Some(Err(why @ NotASchedule::Zone)) => faults.push(FieldError::new("kind.timezone", why.to_string())),
        Some(Err(why @ (NotASchedule::Cron(_) | NotASchedule::Never))) => {
            faults.push(FieldError::new("kind.cron", why.to_string()));
        }
    }
    let is_webhook = *kind == TriggerKind::Webhook;
    if jitter_ms.is_some() && is_webhook {
        faults.push(FieldError::new("jitterMs", "is for schedules"));
    }
    if jitter_ms.is_some_and(|ms| ms > MAX_JITTER_MS) {
        faults.push(FieldError::new("jitterMs", format!("must be at most {MAX_JITTER_MS}")));
    }
    if is_webhook {
        for (index, _) in session.files.iter().enumerate().filter(|(_, file)| file.path == BODY_FILE) {
            let message = "is where the body of the call goes";
            faults.push(FieldError::new(format!("session.files[{index}].path"), message));
        }
    }
    if serde_json::to_vec(session).map_or(usize::MAX, |bytes| bytes.len()) > MAX_SESSION {
        faults.push(FieldError::new("session", format!("must be at most {MAX_SESSION} bytes; take source for more")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(body: &serde_json::Value) -> Vec<String> {
        let (request, shape) = CreateTrigger::parse(body.to_string().as_bytes()).unwrap();
        let faults = shape.into_iter().chain(check(&request, Timestamp::from_millis(1_767_225_600_000)));
        faults.map(|fault| fault.field).collect()
    }

    #[test]
    fn every_fault_is_told_at_once_and_by_name() {
        let session = json!({"code": "1"});
        let schedule = json!({"type": "schedule", "cron": "0 9 * * *"});
        assert_eq!(faults(&json!({"name": "a", "kind": schedule, "session": session})), [""; 0]);
        assert_eq!(
            faults(
                &json!({"name": "a b", "kind": {"type": "schedule", "cron": "0 0 30 2 *", "timezone": "UTC"}, "session": {"cod": 1},
                "jitterMs": 3_600_001, "overlap": "wait", "surplus": 1})
            ),
            ["session.cod", "overlap", "surplus", "name", "kind.cron", "jitterMs"]
        );
        assert_eq!(faults(&json!({"name": "a"})), ["kind", "session"]);
        assert_eq!(faults(&json!({"name": "a", "kind": {"type": "mail"}, "session": session})), ["kind.type"]);
        let zone = json!({"type": "schedule", "cron": "* * * * *", "timezone": "Mars"});
        assert_eq!(faults(&json!({"name": "a", "kind": zone, "session": session})), ["kind.timezone"]);
        let body = json!({"code": "1", "files": [{"path": "trigger.json", "content": ""}]});
        let hook = json!({"name": "a", "kind": {"type": "webhook"}, "session": body, "jitterMs": 1});
        assert_eq!(faults(&hook), ["jitterMs", "session.files[0].path"]);
        let large = json!({"name": "a", "kind": {"type": "webhook"}, "session": {"code": "1".repeat(MAX_SESSION)}});
        assert_eq!(faults(&large), ["session"]);
    }
}
