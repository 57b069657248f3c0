//! Reading requests about triggers: every fault of the shape at once.

use serde_json::Value;

use super::{CreateTrigger, TriggerKind, UpdateTrigger, utc};
use crate::{
    CreateSession,
    json::{JsonError, Object, parse_strict},
    problem::FieldError,
};

impl CreateTrigger {
    /// Reads a request body. What could be read comes back beside every fault of shape.
    pub fn parse(body: &[u8]) -> Result<(Self, Vec<FieldError>), JsonError> {
        let value = parse_strict(body)?;
        let mut faults = Vec::new();
        let mut object = Object::new("", value, &mut faults);
        let kind = object.raw("kind").map(|value| TriggerKind::read(value, object.faults()));
        if kind.is_none() {
            object.fault("kind", "is required");
        }
        let session = object.raw("session").map(|value| session(value, object.faults()));
        if session.is_none() {
            object.fault("session", "is required");
        }
        let request = Self {
            name: object.required("name"),
            kind: kind.unwrap_or_default(),
            session: session.unwrap_or_default(),
            enabled: object.optional("enabled").unwrap_or(true),
            overlap: object.optional("overlap").unwrap_or_default(),
            jitter_ms: object.optional("jitterMs"),
        };
        object.finish();
        Ok((request, faults))
    }
}

impl UpdateTrigger {
    /// Reads a request body, as [`CreateTrigger::parse`] does.
    pub fn parse(body: &[u8]) -> Result<(Self, Vec<FieldError>), JsonError> {
        let value = parse_strict(body)?;
        let mut faults = Vec::new();
        let mut object = Object::new("", value, &mut faults);
        let kind = object.raw("kind").map(|value| TriggerKind::read(value, object.faults()));
        let session = object.raw("session").map(|value| session(value, object.faults()));
        let request = Self {
            enabled: object.optional("enabled"),
            kind,
            session,
            overlap: object.optional("overlap"),
            jitter_ms: object.optional("jitterMs"),
        };
        object.finish();
        Ok((request, faults))
    }
}

impl TriggerKind {
    fn read(value: Value, faults: &mut Vec<FieldError>) -> Self {
        let mut object = Object::new("kind", value, faults);
        let kind: String = object.required("type");
        let read = match kind.as_str() {
            "schedule" => Self::Schedule {
                cron: object.required("cron"),
                timezone: object.optional("timezone").unwrap_or_else(utc),
            },
            "webhook" => Self::Webhook,
            "" => {
                // Its own fault says enough; what else is there belongs to a kind that is not known.
                return Self::default();
            }
            _ => {
                object.fault("type", "must be \"schedule\" or \"webhook\"");
                return Self::default();
            }
        };
        object.finish();
        read
    }
}

/// A session's request inside another, with its faults below `session`.
fn session(value: Value, faults: &mut Vec<FieldError>) -> CreateSession {
    let mut own = Vec::new();
    let request = CreateSession::read(value, &mut own);
    faults.extend(own.into_iter().map(below));
    request
}

/// A fault of a session's request, as a fault of what it is in.
pub(crate) fn below(fault: FieldError) -> FieldError {
    let field = if fault.field == "(body)" { "session".to_owned() } else { format!("session.{}", fault.field) };
    FieldError { field, ..fault }
}
