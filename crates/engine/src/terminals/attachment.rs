//! A client of a terminal, from its coming to its going.

use std::sync::Arc;

use wire::{FieldError, TerminalExit, TerminalGap, TerminalId, TerminalSize};

use super::screen::{NotTaken, Stage};
use crate::{TerminalError, live::Live};

/// Somebody who looks at a terminal and may type into it, until this is dropped.
pub struct Attachment {
    live: Arc<Live>,
    terminal: TerminalId,
    client: u64,
    /// How many bytes come before the first that is shown.
    pub offset: u64,
    /// What was asked for and is held no longer.
    pub gap: Option<TerminalGap>,
}

/// What there is to be seen.
#[derive(Debug)]
pub enum Shown {
    /// What the terminal's programs wrote.
    Output(Vec<u8>),
    /// Its program has ended, and everything was shown.
    Exited(TerminalExit),
    /// It has ended with its session.
    SessionEnded,
}

/// Nothing can be typed into it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalGone;

impl Attachment {
    pub(super) fn new(live: &Arc<Live>, terminal: TerminalId, from: Option<u64>) -> Result<Self, TerminalError> {
        let client = live.board.client();
        let attached = live.board.with(terminal, |screen| {
            let wanted = from.unwrap_or_else(|| screen.start());
            if wanted > screen.end() {
                let message = format!("must be at most {}, which is how much was written", screen.end());
                return Err(TerminalError::Invalid(vec![FieldError::new("from", message)]));
            }
            let offset = wanted.max(screen.start());
            if screen.attach(client, offset) { Ok((wanted, offset)) } else { Err(TerminalError::TooManyClients) }
        });
        let (wanted, offset) = attached.ok_or(TerminalError::NoTerminal)??;
        let gap = (wanted < offset).then_some(TerminalGap { from: wanted, to: offset });
        Ok(Self { live: Arc::clone(live), terminal, client, offset, gap })
    }

    /// What comes behind this many bytes, when it comes, and when the client has received enough of what was sent before.
    /// Cancel-safe.
    pub async fn next(&self, sent: u64) -> Shown {
        loop {
            let looked = self.live.board.with(self.terminal, |screen| {
                let part = screen.part(self.client, sent);
                if !part.is_empty() {
                    return Ok(Shown::Output(part));
                }
                match &screen.stage {
                    Stage::Ended(_) if sent < screen.end() => {}
                    Stage::Ended(Some(exit)) => return Ok(Shown::Exited(*exit)),
                    Stage::Ended(None) => return Ok(Shown::SessionEnded),
                    Stage::Asked(..) | Stage::Opening(_) | Stage::Running => {}
                }
                Err(screen.changed.subscribe())
            });
            match looked {
                None => return Shown::SessionEnded,
                Some(Ok(shown)) => return shown,
                // It was forgotten, if nobody can tell any more.
                Some(Err(mut changed)) => {
                    let _ = changed.changed().await;
                }
            }
        }
    }

    /// The client has received everything up to this many bytes, which must have been sent.
    pub fn received(&self, offset: u64) {
        self.live.board.with(self.terminal, |screen| screen.received(self.client, offset));
    }

    /// Types; waits until there is room. Cancel-safe.
    pub async fn input(&self, data: &[u8]) -> Result<(), TerminalGone> {
        loop {
            let taken = self.live.board.with(self.terminal, |screen| match screen.typed(data) {
                Ok(()) => Ok(()),
                Err(NotTaken::Ended) => Err(None),
                Err(NotTaken::Full) => Err(Some(screen.changed.subscribe())),
            });
            match taken {
                Some(Ok(())) => {
                    self.live.board.touch();
                    return Ok(());
                }
                Some(Err(Some(mut changed))) => {
                    let _ = changed.changed().await;
                }
                None | Some(Err(None)) => return Err(TerminalGone),
            }
        }
    }

    /// Gives the terminal another size, for everybody who looks.
    pub fn resize(&self, size: TerminalSize) {
        self.live.board.with(self.terminal, |screen| screen.resize(size));
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.live.board.with(self.terminal, |screen| screen.detach(self.client));
    }
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attachment").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}
