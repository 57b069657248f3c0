//! The audit log's hash chain: canonical bytes, sealing, and verification that needs nobody's trust.
//!
//! Each org has one chain. An entry's hash covers its canonical JSON, which holds the hash of the entry before it:
//!
//! ```text
//! hash = hex(SHA-256("enclave-audit/1\n" + orgId + "\n" + canonical JSON of the event without `hash`))
//! ```
//!
//! Canonical JSON here is: no white space, keys in byte order, integers, strings escaped as JSON requires and no
//! further, absent fields left out. `data` holds no floating-point numbers.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use wire::{AuditEvent, AuditSource, AuditType, OrgId, SessionId, Timestamp};

const DOMAIN: &str = "enclave-audit/1";

/// Arrays and objects inside one another in an event's data. Parsers stop at 128 and less, and an event in a page in a
/// response is three levels further in.
const MAX_DATA_DEPTH: usize = 100;

/// An event that has no place in the chain yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// When.
    pub ts: Timestamp,
    /// What.
    pub kind: AuditType,
    /// In which session.
    pub session_id: Option<SessionId>,
    /// Who caused it.
    pub actor: String,
    /// Who saw it.
    pub source: AuditSource,
    /// Details; no secrets. [`Draft::check`] says what the chain cannot carry.
    pub data: Value,
}

impl Draft {
    /// An event that the platform itself saw and caused.
    pub fn platform(ts: Timestamp, kind: AuditType, session_id: SessionId, data: Value) -> Self {
        Self { ts, kind, session_id: Some(session_id), actor: "platform".into(), source: AuditSource::Platform, data }
    }

    /// The same, caused by somebody.
    #[must_use]
    pub fn by(mut self, actor: impl Into<String>) -> Self {
        self.actor = actor.into();
        self
    }

    /// Whether every reader of the log, in whatever language, gets the bytes that were hashed from what it reads.
    pub fn check(&self) -> Result<(), Unsealable> {
        if wire::json_depth(&self.data) > MAX_DATA_DEPTH {
            return Err(Unsealable::TooDeep);
        }
        if has_float(&self.data) { Err(Unsealable::Float) } else { Ok(()) }
    }
}

/// Why an event has no place in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsealable {
    /// Languages write the same floating-point number in different ways.
    #[error("audit data holds a floating-point number")]
    Float,
    /// Readers bound how deep they follow.
    #[error("audit data is nested deeper than {MAX_DATA_DEPTH} levels")]
    TooDeep,
}

fn has_float(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => false,
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_float),
        Value::Object(fields) => fields.values().any(has_float),
    }
}

/// The end of a chain: position and hash of its last entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Position of the last entry; 0 for an empty chain.
    pub seq: u64,
    /// Hash of the last entry, hex; 64 zeros for an empty chain.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self { seq: 0, hash: "0".repeat(64) }
    }
}

impl Head {
    /// Gives the draft its place behind this head, and moves the head.
    pub fn seal(&mut self, org: OrgId, draft: Draft) -> AuditEvent {
        let mut event = AuditEvent {
            seq: self.seq + 1,
            ts: draft.ts,
            kind: draft.kind,
            session_id: draft.session_id,
            actor: draft.actor,
            source: draft.source,
            data: draft.data,
            prev_hash: self.hash.clone(),
            hash: String::new(),
        };
        event.hash = digest(org, &event);
        self.seq = event.seq;
        self.hash.clone_from(&event.hash);
        event
    }

    /// Follows the chain by one entry, or says what is wrong with it.
    pub fn follow(&mut self, org: OrgId, event: &AuditEvent) -> Result<(), Broken> {
        if event.seq != self.seq + 1 {
            return Err(Broken::Order { expected: self.seq + 1, found: event.seq });
        }
        if event.prev_hash != self.hash {
            return Err(Broken::Link { seq: event.seq });
        }
        if digest(org, event) != event.hash {
            return Err(Broken::Content { seq: event.seq });
        }
        self.seq = event.seq;
        self.hash.clone_from(&event.hash);
        Ok(())
    }
}

/// Where a chain is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// An entry is missing, doubled, or out of place.
    #[error("expected entry {expected}, found {found}")]
    Order {
        /// The position that was due.
        expected: u64,
        /// The position that came.
        found: u64,
    },
    /// An entry does not name the one before it.
    #[error("entry {seq} does not follow the one before it")]
    Link {
        /// Its position.
        seq: u64,
    },
    /// An entry's content is not what was hashed.
    #[error("entry {seq} was changed")]
    Content {
        /// Its position.
        seq: u64,
    },
}

fn digest(org: OrgId, event: &AuditEvent) -> String {
    let mut hasher = Sha256::new();
    hasher.update(format!("{DOMAIN}\n{org}\n"));
    hasher.update(canonical_event(event));
    hex::encode(hasher.finalize())
}

/// The canonical JSON of an event without its `hash`: the bytes that are hashed.
pub fn canonical_event(event: &AuditEvent) -> String {
    let mut fields = Map::new();
    fields.insert("actor".into(), event.actor.clone().into());
    fields.insert("data".into(), event.data.clone());
    fields.insert("prevHash".into(), event.prev_hash.clone().into());
    fields.insert("seq".into(), event.seq.into());
    if let Some(id) = event.session_id {
        fields.insert("sessionId".into(), id.to_string().into());
    }
    let source = match event.source {
        AuditSource::Platform => "platform",
        AuditSource::Gateway => "gateway",
        AuditSource::Runner => "runner",
    };
    fields.insert("source".into(), source.into());
    fields.insert("ts".into(), event.ts.to_string().into());
    fields.insert("type".into(), event.kind.as_str().into());
    let mut out = String::new();
    write_canonical(&Value::Object(fields), &mut out);
    out
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            write!(out, "{value}").expect("writing to a string");
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            // Sorted here: whether serde_json's own map is depends on a feature that any dependency may switch on.
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
            out.push('{');
            for (index, (key, item)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write!(out, "{}:", Value::String(key.clone())).expect("writing to a string");
                write_canonical(item, out);
            }
            out.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn org() -> OrgId {
        OrgId::from_uuid(Uuid::from_u128(1))
    }

    fn chain(length: u32) -> Vec<AuditEvent> {
        let mut head = Head::default();
        (0..length)
            .map(|n| {
                let session = SessionId::from_uuid(Uuid::from_u128(u128::from(n)));
                let ts = Timestamp::from_millis(i64::from(n));
                head.seal(org(), Draft::platform(ts, AuditType::SessionCreated, session, json!({"n": n, "a": "b"})))
            })
            .collect()
    }

    fn verify(org: OrgId, events: &[AuditEvent]) -> Result<(), Broken> {
        let mut head = Head::default();
        events.iter().try_for_each(|event| head.follow(org, event))
    }

    #[test]
    fn the_canonical_form_and_the_hash_are_fixed() {
        let event = &chain(1)[0];
        assert_eq!(
            canonical_event(event),
            r#"{"actor":"platform","data":{"a":"b","n":0},"prevHash":"0000000000000000000000000000000000000000000000000000000000000000","seq":1,"sessionId":"ses_00000000-0000-0000-0000-000000000000","source":"platform","ts":"1970-01-01T00:00:00.000Z","type":"session_created"}"#
        );
        // Computed with sha256sum over the documented bytes.
        assert_eq!(event.hash, "7cd8f31d393f900acbcfbb7644f529139edf3bc31c9f4c598ac8329f3ec4768c");
    }

    #[test]
    fn what_readers_could_not_hash_alike_is_not_sealed() {
        let with = |data| {
            Draft::platform(Timestamp::from_millis(0), AuditType::AccessDenied, SessionId::from_uuid(Uuid::nil()), data)
        };
        let nested = |levels| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(with(nested(MAX_DATA_DEPTH)).check(), Ok(()));
        assert_eq!(with(nested(MAX_DATA_DEPTH + 1)).check(), Err(Unsealable::TooDeep));
        assert_eq!(with(json!({ "a": [u64::MAX, i64::MIN, "1.5", null] })).check(), Ok(()));
        for float in [json!(1.5), json!([1.0]), json!({ "a": { "b": -0.0 } })] {
            assert_eq!(with(float).check(), Err(Unsealable::Float));
        }
    }

    #[test]
    fn a_chain_belongs_to_its_org() {
        let other = OrgId::from_uuid(Uuid::from_u128(2));
        assert_eq!(verify(other, &chain(1)), Err(Broken::Content { seq: 1 }));
    }

    proptest! {
        #[test]
        fn any_change_drop_or_swap_is_found(length in 2_u32..20, at in any::<prop::sample::Index>(), how in 0..6) {
            let honest = chain(length);
            prop_assert_eq!(verify(org(), &honest), Ok(()));
            let mut events = honest.clone();
            let at = at.index(events.len() - 1);
            match how {
                0 => { events.remove(at); }
                1 => events.swap(at, at + 1),
                2 => events[at].data = json!({"n": 999}),
                3 => events[at].actor.push('x'),
                4 => { let doubled = events[at].clone(); events.insert(at, doubled); }
                _ => events[at].ts = Timestamp::from_millis(-1),
            }
            prop_assert!(verify(org(), &events).is_err());
        }
    }
}
