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
        let kind = object.required_nested("kind", TriggerKind::read);
        let session = object.required_nested("session", CreateSession::read_at);
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
        let kind = object.nested("kind", TriggerKind::read);
        let session = object.nested("session", CreateSession::read_at);
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
    fn read(path: &str, value: Value, faults: &mut Vec<FieldError>) -> Self {
        let mut object = Object::new(path, value, faults);
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
