//! Terminals of a sandbox whose program runs: what the host asks of one, and what the runner says of it.
//!
//! Both directions have credit, in bytes: nobody sends more than the other side has said it took, plus a window. So a
//! terminal that nobody reads makes its own programs wait, and a program that does not read makes whoever types wait,
//! and neither costs anybody else anything. The numbers of terminals are the host's, and are not used again.

use serde::{Deserialize, Serialize};

use crate::frame::Exit;

/// Terminals that may be there at once.
pub const MAX_TERMINALS: usize = 8;
/// Most bytes of a terminal in one frame, in either direction.
pub const TERMINAL_CHUNK_BYTES: usize = 16 * 1024;
/// Output that the runner may have sent and the host not acknowledged: some screens of the largest kind.
pub const TERMINAL_WINDOW_BYTES: u64 = 128 * 1024;
/// Input that the host may have sent and the terminal not taken.
pub const TERMINAL_INPUT_BYTES: u64 = 64 * 1024;
/// Bytes of what is said for people about a terminal that could not be opened.
pub const MAX_NOT_OPENED_BYTES: usize = 512;

/// Something for a terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalCall {
    /// Which.
    pub terminal: u32,
    /// What.
    pub op: TerminalOp,
}

/// What the host can ask of a terminal. Only [`TerminalOp::Open`] is answered as such; of a terminal that has ended
/// meanwhile, the rest is without effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TerminalOp {
    /// Makes it, with a program in it.
    Open(OpenTerminal),
    /// What was typed: at most [`TERMINAL_CHUNK_BYTES`].
    Input(#[serde(with = "serde_bytes")] Vec<u8>),
    /// It has another size now.
    Resize(TerminalSize),
    /// So many bytes of its output were taken.
    Ack {
        /// Not more than were sent.
        bytes: u32,
    },
    /// Ends it, and what runs in it. What it still writes is of no interest.
    Close,
}

/// A terminal to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenTerminal {
    /// The program and its arguments; none for a shell.
    pub command: Vec<String>,
    /// What its environment has besides that of the session's program.
    pub env: Vec<(String, String)>,
    /// How large it is.
    pub size: TerminalSize,
}

/// Characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub cols: u16,
}

/// Something about a terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalReply {
    /// Which.
    pub terminal: u32,
    /// What.
    pub said: TerminalSaid,
}

/// What the runner says of a terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TerminalSaid {
    /// Its program runs.
    Opened,
    /// It could not be made; nothing is left of it.
    NotOpened {
        /// Whether it is the command that cannot be run, rather than the terminal that cannot be had.
        is_command: bool,
        /// For people. At most [`MAX_NOT_OPENED_BYTES`].
        message: String,
    },
    /// What was written to it: at most [`TERMINAL_CHUNK_BYTES`].
    Output(#[serde(with = "serde_bytes")] Vec<u8>),
    /// So many bytes of its input were taken.
    Took {
        /// Not more than were sent.
        bytes: u32,
    },
    /// Its program has ended, and all that it had written was sent. The last that is said.
    Ended(Exit),
}

/// Something is larger than an honest runner would say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oversized;

impl TerminalReply {
    /// Checks the size. Whether there is such a terminal, and whether it has credit, is not known here.
    pub fn check(&self) -> Result<(), Oversized> {
        let fits = match &self.said {
            TerminalSaid::Opened | TerminalSaid::Ended(_) => true,
            TerminalSaid::NotOpened { message, .. } => message.len() <= MAX_NOT_OPENED_BYTES,
            TerminalSaid::Output(data) => (1..=TERMINAL_CHUNK_BYTES).contains(&data.len()),
            TerminalSaid::Took { bytes } => (1..=TERMINAL_INPUT_BYTES).contains(&u64::from(*bytes)),
        };
        if fits { Ok(()) } else { Err(Oversized) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(said: TerminalSaid) -> Result<(), Oversized> {
        TerminalReply { terminal: 1, said }.check()
    }

    #[test]
    fn what_is_said_of_a_terminal_has_bounds() {
        let not_opened = |bytes| TerminalSaid::NotOpened { is_command: true, message: "x".repeat(bytes) };
        let took = |bytes| TerminalSaid::Took { bytes };
        assert_eq!(said(TerminalSaid::Output(vec![0; TERMINAL_CHUNK_BYTES])), Ok(()));
        assert_eq!(said(not_opened(MAX_NOT_OPENED_BYTES)), Ok(()));
        assert_eq!(said(took(1)), Ok(()));
        for over in [
            TerminalSaid::Output(vec![]),
            TerminalSaid::Output(vec![0; TERMINAL_CHUNK_BYTES + 1]),
            not_opened(MAX_NOT_OPENED_BYTES + 1),
            took(0),
            took(u32::try_from(TERMINAL_INPUT_BYTES).expect("it fits") + 1),
        ] {
            assert_eq!(said(over), Err(Oversized));
        }
    }
}
