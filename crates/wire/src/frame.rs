//! Frames of a session's stream (server-sent events).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{AuditEvent, KillReason, Outcome, Phase, SessionResult, Timestamp, TurnChange};

/// The kind of a frame: the `event:` line of the server-sent event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FrameKind {
    /// The session's phase changed.
    Phase,
    /// Bytes of standard output.
    Stdout,
    /// Bytes of standard error.
    Stderr,
    /// An audit event of this session.
    Audit,
    /// A turn was accepted, started or ended.
    Turn,
    /// The result of a finished session.
    Result,
    /// Output that the buffer had to drop.
    Gap,
    /// A member of a fleet changed.
    Member,
    /// How far a fleet is.
    Progress,
    /// The last frame.
    End,
}

impl FrameKind {
    /// The word on the `event:` line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Phase => "phase",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Audit => "audit",
            Self::Turn => "turn",
            Self::Result => "result",
            Self::Gap => "gap",
            Self::Member => "member",
            Self::Progress => "progress",
            Self::End => "end",
        }
    }
}

/// The session's phase changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhaseChange {
    /// The new phase.
    pub phase: Phase,
    /// When.
    pub ts: Timestamp,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Which limit ended it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_reason: Option<KillReason>,
}

/// Bytes that the workload wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Chunk {
    /// The bytes as text. A chunk is cut between characters; bytes that are not UTF-8 are replacement characters
    /// here and are given in `base64`.
    pub text: String,
    /// The exact bytes, when they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Offset of the first byte in this stream's output.
    pub offset: u64,
}

/// Output that the buffer had to drop before this reader came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// Bytes of stdout and stderr that are missing here. For a reader that comes back from the middle of what is missing,
    /// at most: all of it is counted.
    pub dropped_bytes: u64,
}

/// The last frame: nothing follows for this session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// How the session ended.
    pub outcome: Outcome,
}

/// One frame: its sequence number is the `id:` line, its kind the `event:` line, its content the `data:` line.
// Read by `parse`: the content alone does not say which it is.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum StreamFrame {
    /// `event: result`
    Result(Box<SessionResult>),
    /// `event: audit`
    Audit(Box<AuditEvent>),
    /// `event: phase`
    Phase(PhaseChange),
    /// `event: turn`
    Turn(TurnChange),
    /// `event: stdout`
    Stdout(Chunk),
    /// `event: stderr`
    Stderr(Chunk),
    /// `event: gap`
    Gap(Gap),
    /// `event: end`
    End(End),
}

impl StreamFrame {
    /// The `event:` line.
    pub fn kind(&self) -> FrameKind {
        match self {
            Self::Result(_) => FrameKind::Result,
            Self::Audit(_) => FrameKind::Audit,
            Self::Phase(_) => FrameKind::Phase,
            Self::Turn(_) => FrameKind::Turn,
            Self::Stdout(_) => FrameKind::Stdout,
            Self::Stderr(_) => FrameKind::Stderr,
            Self::Gap(_) => FrameKind::Gap,
            Self::End(_) => FrameKind::End,
        }
    }

    /// Reads a frame from its `event:` and `data:` lines; none for a kind that this version does not know.
    pub fn parse(kind: &str, data: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match kind {
            "result" => Self::Result(serde_json::from_str(data)?),
            "audit" => Self::Audit(serde_json::from_str(data)?),
            "phase" => Self::Phase(serde_json::from_str(data)?),
            "turn" => Self::Turn(serde_json::from_str(data)?),
            "stdout" => Self::Stdout(serde_json::from_str(data)?),
            "stderr" => Self::Stderr(serde_json::from_str(data)?),
            "gap" => Self::Gap(serde_json::from_str(data)?),
            "end" => Self::End(serde_json::from_str(data)?),
            _ => return Ok(None),
        }))
    }
}
