//! Terminals of a session that runs, as callers see them: the objects, and what is said on their sockets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    SessionId, TerminalId, Timestamp,
    json::{JsonError, Object, parse_strict},
    problem::FieldError,
};

/// A terminal to be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateTerminal {
    /// The program that runs in it, and its arguments: by its path, or by a name that is looked up in `PATH`. A shell if
    /// absent: `/bin/bash` where the image has it, else `/bin/sh`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["top", "-d", "1"]))]
    pub command: Vec<String>,
    /// Environment variables on top of those that the session's program has, and of `TERM`, which is `xterm-256color`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Lines, 1 to 1000; 24 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u16>,
    /// Characters in a line, 1 to 1000; 80 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cols: Option<u16>,
}

impl CreateTerminal {
    /// Reads a request body. What could be read comes back beside every fault of shape, so that faults of content can
    /// be reported together with them.
    pub fn parse(body: &[u8]) -> Result<(Self, Vec<FieldError>), JsonError> {
        let mut faults = Vec::new();
        let mut object = Object::new("", parse_strict(body)?, &mut faults);
        let request = Self {
            command: object.optional("command").unwrap_or_default(),
            env: object.optional("env").unwrap_or_default(),
            rows: object.optional("rows"),
            cols: object.optional("cols"),
        };
        object.finish();
        Ok((request, faults))
    }
}

/// Where a terminal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TerminalState {
    /// Its program runs.
    Running,
    /// Its program has ended.
    Exited,
}

/// A terminal of a session that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Terminal {
    /// Its id.
    pub id: TerminalId,
    /// Its session.
    pub session_id: SessionId,
    /// The program in it and its arguments; empty for the image's shell.
    pub command: Vec<String>,
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub cols: u16,
    /// Where it is.
    pub state: TerminalState,
    /// How its program exited, 128 and the signal's number if a signal ended it. Absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// When it was opened.
    pub created_at: Timestamp,
}

/// A session's terminals, in the order in which they were opened: those that run, and the last ones that have ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TerminalPage {
    /// The terminals.
    pub items: Vec<Terminal>,
}

/// A terminal's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TerminalSize {
    /// Lines, 1 to 1000.
    #[schema(minimum = 1, maximum = 1000)]
    pub rows: u16,
    /// Characters in a line, 1 to 1000.
    #[schema(minimum = 1, maximum = 1000)]
    pub cols: u16,
}

/// What a client says in a text message on a terminal's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum TerminalControl {
    /// The terminal has another size now.
    Resize(TerminalSize),
}

/// What the server says in a text message on a terminal's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum TerminalEvent {
    /// The first message.
    Attached(TerminalAttached),
    /// What was asked for is held no longer. Follows the first message at once, if it comes.
    Gap(TerminalGap),
    /// The program in the terminal has ended, and all of its output has been sent. The last message.
    Exited(TerminalExit),
}

/// Where a client is in the output of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TerminalAttached {
    /// How many bytes of output come before the first that this socket carries.
    pub offset: u64,
}

/// Output that a client will not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TerminalGap {
    /// Offset of the first byte that is missing: `from`, as it was asked for.
    pub from: u64,
    /// Offset of the first byte that is there.
    pub to: u64,
}

/// How the program in a terminal ended. Exactly one of the two is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TerminalExit {
    /// It exited with this code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// This signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

impl TerminalControl {
    /// Reads a text message.
    pub fn parse(text: &str) -> Result<Self, JsonError> {
        parse_strict(text.as_bytes())?;
        serde_json::from_str(text).map_err(JsonError::from)
    }
}

impl TerminalExit {
    /// As a shell would show it: 128 and the signal's number for a signal.
    pub fn exit_code(self) -> i32 {
        self.code.unwrap_or_else(|| 128 + self.signal.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_read_strictly_and_every_fault_comes_at_once() {
        let (asked, faults) = CreateTerminal::parse(br#"{"command": ["top"], "rows": 50}"#).unwrap();
        assert_eq!((asked.command, asked.rows, asked.cols, faults), (vec!["top".to_owned()], Some(50), None, vec![]));
        let (_, faults) = CreateTerminal::parse(br#"{"command": "top", "rows": -1, "env": [], "tty": true}"#).unwrap();
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["command", "env", "rows", "tty"]);
    }

    #[test]
    fn messages_of_a_socket_name_what_they_are() {
        let size = TerminalSize { rows: 50, cols: 132 };
        let text = r#"{"resize":{"rows":50,"cols":132}}"#;
        assert_eq!(TerminalControl::parse(text).unwrap(), TerminalControl::Resize(size));
        for text in [
            "",
            "resize",
            "{}",
            r#"{"resize":{"rows":50}}"#,
            r#"{"resize":{"rows":50,"cols":132,"x":1}}"#,
            r#"{"resize":{"rows":50,"rows":51,"cols":132}}"#,
            r#"{"resize":{"rows":-1,"cols":132}}"#,
            r#"{"close":{}}"#,
            r#"{"resize":{"rows":50,"cols":132},"resize":{"rows":50,"cols":132}}"#,
        ] {
            assert!(TerminalControl::parse(text).is_err(), "{text}");
        }
        for (event, text) in [
            (TerminalEvent::Attached(TerminalAttached { offset: 7 }), r#"{"attached":{"offset":7}}"#),
            (TerminalEvent::Gap(TerminalGap { from: 1, to: 7 }), r#"{"gap":{"from":1,"to":7}}"#),
            (TerminalEvent::Exited(TerminalExit { code: Some(3), signal: None }), r#"{"exited":{"code":3}}"#),
            (TerminalEvent::Exited(TerminalExit { code: None, signal: Some(9) }), r#"{"exited":{"signal":9}}"#),
        ] {
            assert_eq!(serde_json::to_string(&event).unwrap(), text);
        }
    }
}
