//! Examples of terminals.

use uuid::Uuid;
use wire::{CreateTerminal, Terminal, TerminalId, TerminalState};

use super::{at, id};

pub(super) fn create() -> CreateTerminal {
    CreateTerminal { rows: Some(50), cols: Some(132), ..CreateTerminal::default() }
}

pub(super) fn terminal() -> Terminal {
    Terminal {
        id: TerminalId::from_uuid(Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_0009)),
        session_id: id(),
        command: vec![],
        rows: 50,
        cols: 132,
        state: TerminalState::Running,
        exit_code: None,
        created_at: at(900),
    }
}
