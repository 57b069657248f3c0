//! Turns of interactive sessions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Chunk, FrameKind, Gap, JsonText, SessionId, Timestamp,
    json::{JsonError, Object, parse_strict},
    problem::FieldError,
};

/// A piece of code to run in an interactive session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateTurn {
    /// The code, in the session's language.
    #[schema(example = "x = 20\nx + 1")]
    pub code: String,
    /// Milliseconds after which it is interrupted, at most the session's `interactive.turnTimeoutMs`, which is also what
    /// is taken when this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl CreateTurn {
    /// Reads a request body. What could be read comes back beside every fault of shape, so that faults of content can
    /// be reported together with them.
    pub fn parse(body: &[u8]) -> Result<(Self, Vec<FieldError>), JsonError> {
        let mut faults = Vec::new();
        let mut object = Object::new("", parse_strict(body)?, &mut faults);
        let request = Self { code: object.required("code"), timeout_ms: object.optional("timeoutMs") };
        object.finish();
        Ok((request, faults))
    }
}

/// Where a turn is, and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TurnStatus {
    /// Accepted; others run before it.
    Queued,
    /// It runs.
    Running,
    /// It ran to its end.
    Completed,
    /// Its code raised an error.
    Failed,
    /// It was interrupted; the session goes on.
    Interrupted,
    /// The session ended first; the session's outcome says why.
    Aborted,
}

impl TurnStatus {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Aborted => "aborted",
        }
    }

    /// Whether it stays so.
    pub fn has_ended(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Completed | Self::Failed | Self::Interrupted | Self::Aborted => true,
        }
    }
}

/// Why a turn was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InterruptedBy {
    /// Its time was over.
    Timeout,
    /// A caller asked for it.
    Caller,
}

/// The value of a turn's last expression, in every form that the object offers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TurnValue {
    /// As text: `repr()` in Python, `util.inspect` in Node.
    #[serde(rename = "text/plain", default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<String>,
    /// As HTML. Written by the workload: not to be shown without a sandbox around it.
    #[serde(rename = "text/html", default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// As JSON.
    #[serde(rename = "application/json", default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub json: Option<JsonText>,
    /// As a picture: PNG in base64.
    #[serde(rename = "image/png", default, skip_serializing_if = "Option::is_none")]
    pub png: Option<String>,
}

/// What a turn's code raised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TurnError {
    /// Its class.
    #[schema(example = "ZeroDivisionError")]
    pub name: String,
    /// Its message.
    #[schema(example = "division by zero")]
    pub value: String,
    /// Where it was raised, line by line.
    pub traceback: String,
}

/// One piece of code that ran, or will run, in an interactive session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Turn {
    /// Its session.
    pub session_id: SessionId,
    /// Its place in the session: the first is 1.
    pub number: u32,
    /// Where it is, and how it ended.
    pub status: TurnStatus,
    /// What it was told to stop by, if it was. A turn that caught the interrupt may have any status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupted_by: Option<InterruptedBy>,
    /// The code.
    pub code: String,
    /// Milliseconds after which it is interrupted.
    pub timeout_ms: u64,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it was given to the language host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// How long it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// The value of its last expression; null if it has none.
    pub value: Option<TurnValue>,
    /// What it raised; null if it raised nothing.
    pub error: Option<TurnError>,
    /// The JSON that it gave to `enclave.result`; null if it gave none.
    #[schema(value_type = Option<Value>)]
    pub result: Option<JsonText>,
    /// The last 64 KiB that it wrote to standard output, as UTF-8 with replacement characters.
    pub stdout_tail: String,
    /// Whether there was more before it.
    pub stdout_truncated: bool,
    /// How many bytes of the turn there were before it.
    pub stdout_tail_offset: u64,
    /// The last 64 KiB that it wrote to standard error, as UTF-8 with replacement characters.
    pub stderr_tail: String,
    /// Whether there was more before it.
    pub stderr_truncated: bool,
    /// How many bytes of the turn there were before it.
    pub stderr_tail_offset: u64,
    /// Whether code, value, error, result and output were left out of this record, because the session's turns before it
    /// had filled the room that a session has for them. Whoever waited for the turn was given all of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trimmed: bool,
}

impl Turn {
    /// One that nothing has become of yet.
    pub fn queued(session_id: SessionId, number: u32, code: String, timeout_ms: u64, created_at: Timestamp) -> Self {
        Self {
            session_id,
            number,
            status: TurnStatus::Queued,
            interrupted_by: None,
            code,
            timeout_ms,
            created_at,
            started_at: None,
            finished_at: None,
            duration_ms: None,
            value: None,
            error: None,
            result: None,
            stdout_tail: String::new(),
            stdout_truncated: false,
            stdout_tail_offset: 0,
            stderr_tail: String::new(),
            stderr_truncated: false,
            stderr_tail_offset: 0,
            trimmed: false,
        }
    }
}

/// One page of a session's turns, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TurnPage {
    /// The turns.
    pub items: Vec<Turn>,
    /// Give this as `cursor` to get the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A turn was accepted, started or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TurnChange {
    /// Which.
    pub number: u32,
    /// Where it is now.
    pub status: TurnStatus,
    /// When.
    pub ts: Timestamp,
    /// How long it ran, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

/// One frame of a turn's stream: its content is the `data:` line, its kind the `event:` line, and the `id:` line has its
/// number in the session's stream, where a reader whose connection broke goes on.
// Read by `parse`: the content alone does not say which it is.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum TurnFrame {
    /// `event: end`: the turn as it ended. The last one.
    End(Box<Turn>),
    /// `event: turn`
    Turn(TurnChange),
    /// `event: stdout`
    Stdout(Chunk),
    /// `event: stderr`
    Stderr(Chunk),
    /// `event: gap`
    Gap(Gap),
}

impl TurnFrame {
    /// The `event:` line.
    pub fn kind(&self) -> FrameKind {
        match self {
            Self::End(_) => FrameKind::End,
            Self::Turn(_) => FrameKind::Turn,
            Self::Stdout(_) => FrameKind::Stdout,
            Self::Stderr(_) => FrameKind::Stderr,
            Self::Gap(_) => FrameKind::Gap,
        }
    }

    /// Reads a frame from its `event:` and `data:` lines; none for a kind that this version does not know.
    pub fn parse(kind: &str, data: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match kind {
            "end" => Self::End(serde_json::from_str(data)?),
            "turn" => Self::Turn(serde_json::from_str(data)?),
            "stdout" => Self::Stdout(serde_json::from_str(data)?),
            "stderr" => Self::Stderr(serde_json::from_str(data)?),
            "gap" => Self::Gap(serde_json::from_str(data)?),
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_read_strictly_and_every_fault_comes_at_once() {
        let (turn, faults) = CreateTurn::parse(br#"{"code": "1+1", "timeoutMs": 500}"#).unwrap();
        assert_eq!((turn.code.as_str(), turn.timeout_ms, faults), ("1+1", Some(500), vec![]));
        let (_, faults) = CreateTurn::parse(br#"{"timeoutMs": -1, "cod": "x"}"#).unwrap();
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["code", "timeoutMs", "cod"]);
    }

    #[test]
    fn a_value_has_its_mime_types_as_names() {
        let value = TurnValue { plain: Some("2".into()), ..TurnValue::default() };
        let text = serde_json::to_string(&value).unwrap();
        assert_eq!(text, r#"{"text/plain":"2"}"#);
        assert_eq!(serde_json::from_str::<TurnValue>(&text).unwrap(), value);
    }
}
