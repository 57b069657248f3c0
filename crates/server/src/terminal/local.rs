//! The local terminal: raw as long as it stands for the one in the sandbox, and as it was found afterwards.

use std::io::{self, IsTerminal as _, Read as _, Write as _};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use wire::TerminalSize;

/// Pieces of what is typed that wait to be sent.
const TYPED: usize = 8;
/// What a terminal can be at most.
const MAX_SIDE: u16 = 1000;

/// See the module.
pub(super) struct Local {
    /// As it was found; none when standard input is no terminal.
    found: Option<Termios>,
    keys: mpsc::Receiver<Vec<u8>>,
    resized: Signal,
    /// Nothing more is typed.
    is_over: bool,
}

/// What is done at the local terminal.
pub(super) enum Done {
    Typed(Vec<u8>),
    /// Standard input is at its end.
    Over,
    Resized(TerminalSize),
}

impl Local {
    /// Takes the terminal over. It is read by a thread of its own.
    pub(super) fn take() -> io::Result<Self> {
        let resized = signal(SignalKind::window_change())?;
        let found = if io::stdin().is_terminal() {
            let found = tcgetattr(io::stdin())?;
            let mut raw = found.clone();
            raw.make_raw();
            tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
            Some(found)
        } else {
            None
        };
        let (typed, keys) = mpsc::channel(TYPED);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = io::stdin().lock().read(&mut buffer) {
                if typed.blocking_send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { found, keys, resized, is_over: false })
    }

    /// Whether a person types.
    pub(super) fn is_terminal(&self) -> bool {
        self.found.is_some()
    }

    /// The next that is done here. Cancel-safe.
    pub(super) async fn next(&mut self) -> Done {
        loop {
            tokio::select! {
                keys = self.keys.recv(), if !self.is_over => {
                    self.is_over = keys.is_none();
                    return keys.map_or(Done::Over, Done::Typed);
                }
                Some(()) = self.resized.recv() => if let Some(size) = size() {
                    return Done::Resized(size);
                },
                else => std::future::pending().await,
            }
        }
    }

    /// Puts the terminal back.
    pub(super) fn restore(&mut self) {
        if let Some(found) = self.found.take() {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &found);
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.restore();
    }
}

/// How large the terminal is, if there is one.
pub(super) fn size() -> Option<TerminalSize> {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok()?;
    let known = size.ws_row > 0 && size.ws_col > 0;
    known.then(|| TerminalSize { rows: size.ws_row.min(MAX_SIDE), cols: size.ws_col.min(MAX_SIDE) })
}

/// Shows what came.
pub(super) fn show(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Finds the way out in what is typed: `~.` at the beginning of a line, as in other programs of this kind.
#[derive(Debug)]
pub(super) struct Escape {
    at_line_start: bool,
    held: bool,
}

/// What is to be done with what was typed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    Send(Vec<u8>),
    /// After this is sent.
    Leave(Vec<u8>),
}

impl Escape {
    pub(super) fn new() -> Self {
        Self { at_line_start: true, held: false }
    }

    pub(super) fn pass(&mut self, bytes: &[u8]) -> Typed {
        let mut sent = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            if std::mem::take(&mut self.held) {
                match byte {
                    b'.' => return Typed::Leave(sent),
                    // Twice is one.
                    b'~' => {}
                    _ => sent.push(b'~'),
                }
            } else if byte == b'~' && self.at_line_start {
                self.held = true;
                continue;
            }
            self.at_line_start = matches!(byte, b'\r' | b'\n');
            sent.push(byte);
        }
        Typed::Send(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(pieces: &[&str]) -> (String, bool) {
        let (mut escape, mut sent) = (Escape::new(), Vec::new());
        for piece in pieces {
            match escape.pass(piece.as_bytes()) {
                Typed::Send(bytes) => sent.extend(bytes),
                Typed::Leave(bytes) => {
                    sent.extend(bytes);
                    return (String::from_utf8(sent).unwrap(), true);
                }
            }
        }
        (String::from_utf8(sent).unwrap(), false)
    }

    #[test]
    fn the_way_out_is_at_the_beginning_of_a_line_alone() {
        assert_eq!(typed(&["~."]), (String::new(), true));
        assert_eq!(typed(&["ls\r", "~", "."]), ("ls\r".into(), true));
        assert_eq!(typed(&["cd ~.\r"]), ("cd ~.\r".into(), false));
        assert_eq!(typed(&["~~.\r", "~/x\r"]), ("~.\r~/x\r".into(), false));
    }
}
