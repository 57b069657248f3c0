//! Examples of turns.

use wire::{CreateTurn, Turn, TurnPage, TurnStatus, TurnValue};

use super::{at, id};

pub(super) fn create() -> CreateTurn {
    CreateTurn { code: "x = 20\nprint('hello')\nx + 1".into(), timeout_ms: Some(10_000) }
}

pub(super) fn turn() -> Turn {
    Turn {
        status: TurnStatus::Completed,
        started_at: Some(at(40)),
        finished_at: Some(at(43)),
        duration_ms: Some(3),
        value: Some(TurnValue { plain: Some("21".into()), ..TurnValue::default() }),
        stdout_tail: "hello\n".into(),
        ..Turn::queued(id(), 1, create().code, 10_000, at(39))
    }
}

pub(super) fn page() -> TurnPage {
    TurnPage { items: vec![turn()], next_cursor: None }
}
