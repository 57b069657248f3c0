//! Terminals of a session, while its program runs: for the API.
//!
//! What is typed goes to the [`Board`] of the session, through the driver and the pipe to the runner; what is written comes
//! back the same way, and is held until every client that looks has it. Whoever is slow slows the terminal's programs,
//! and nobody else. The bytes of a terminal are the workload's: they are carried and never looked at.

mod attachment;
mod board;
mod screen;

use std::{sync::Arc, time::Duration};

use model::{access::Caller, audit::Draft, terminal::TerminalSpec};
use protocol::terminals::OpenTerminal;
use serde_json::{Map, Value, json};
use tokio::{sync::oneshot, time::timeout};
use wire::{
    AuditType, CreateTerminal, FieldError, SessionId, Terminal, TerminalExit, TerminalId, TerminalPage, TerminalState,
};

pub use attachment::{Attachment, Shown, TerminalGone};
pub(crate) use board::Board;

use self::board::{Begun, NotBegun};
use crate::{Engine, Inner, TerminalError, live::Live};

/// How long a terminal may take to be opened.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a command that the audit log has of it.
const TOLD_BYTES: usize = 1024;

impl Engine {
    /// Opens a terminal.
    pub async fn open_terminal(
        &self,
        caller: &Caller,
        id: SessionId,
        asked: CreateTerminal,
        faults: Vec<FieldError>,
    ) -> Result<Terminal, TerminalError> {
        let live = self.reach_terminals(caller, id).await?;
        let TerminalSpec { command, env, size } =
            TerminalSpec::decide(asked, faults).map_err(TerminalError::Invalid)?;
        let terminal = Terminal {
            id: self.inner.ids.terminal(&self.inner.clock),
            session_id: id,
            command: command.clone(),
            rows: size.rows,
            cols: size.cols,
            state: TerminalState::Running,
            exit_code: None,
            created_at: self.inner.clock.now(),
        };
        let size = screen::inside(size);
        let open = OpenTerminal { command, env: env.into_iter().collect(), size };
        let Begun { made, recording } = live.board.begin(terminal.clone(), open)?;
        // What was asked for happens, whether or not somebody waits for it, and is recorded from its beginning to its end.
        let (tell, told) = oneshot::channel();
        let record = Record { inner: Arc::clone(&self.inner), live: Arc::clone(&live), session: id };
        let (opened, actor) = (terminal.clone(), caller.subject.to_string());
        tokio::spawn(async move {
            record.life(opened, actor, made, tell).await;
            drop(recording);
        });
        match timeout(OPEN_PATIENCE, told).await {
            Ok(Ok(Ok(()))) => Ok(terminal),
            Ok(Ok(Err(refused))) => Err(refused),
            Ok(Err(_)) => Err(TerminalError::NotRunning),
            Err(_) => {
                live.board.close_terminal(terminal.id, None);
                Err(TerminalError::Late)
            }
        }
    }

    /// The session's terminals.
    pub async fn terminals(&self, caller: &Caller, id: SessionId) -> Result<TerminalPage, TerminalError> {
        let live = self.reach_terminals(caller, id).await?;
        Ok(TerminalPage { items: live.board.views() })
    }

    /// One of them.
    pub async fn terminal(
        &self,
        caller: &Caller,
        id: SessionId,
        terminal: TerminalId,
    ) -> Result<Terminal, TerminalError> {
        let live = self.reach_terminals(caller, id).await?;
        live.board.view(terminal).ok_or(TerminalError::NoTerminal)
    }

    /// Ends what runs in a terminal. One that has ended stays as it is.
    pub async fn close_terminal(
        &self,
        caller: &Caller,
        id: SessionId,
        terminal: TerminalId,
    ) -> Result<(), TerminalError> {
        let live = self.reach_terminals(caller, id).await?;
        if !live.board.close_terminal(terminal, Some(caller.subject.to_string())) {
            return Err(TerminalError::NoTerminal);
        }
        match timeout(OPEN_PATIENCE, live.board.ended(terminal)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(TerminalError::Late),
        }
    }

    /// Looks at a terminal, and types into it: from the byte of this number on; from the oldest that is held if none.
    pub async fn attach_terminal(
        &self,
        caller: &Caller,
        id: SessionId,
        terminal: TerminalId,
        from: Option<u64>,
    ) -> Result<Attachment, TerminalError> {
        let live = self.reach_terminals(caller, id).await?;
        Attachment::new(&live, terminal, from)
    }

    /// The session, if its program runs.
    async fn reach_terminals(&self, caller: &Caller, id: SessionId) -> Result<Arc<Live>, TerminalError> {
        match self.inner.registry.get(caller.org, id) {
            Some(live) if live.board.is_open() => Ok(live),
            Some(_) => Err(TerminalError::NotRunning),
            None => {
                let stored = self.inner.store.tenant(caller.org).session(id).await?;
                Err(if stored.is_some() { TerminalError::NotRunning } else { TerminalError::NoSession })
            }
        }
    }
}

/// What becomes of a terminal, for the audit log.
struct Record {
    inner: Arc<Inner>,
    live: Arc<Live>,
    session: SessionId,
}

impl Record {
    async fn life(
        self,
        terminal: Terminal,
        actor: String,
        made: oneshot::Receiver<Result<(), NotBegun>>,
        tell: oneshot::Sender<Result<(), TerminalError>>,
    ) {
        let refused = match made.await {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(TerminalError::from(why)),
            Err(_) => Some(TerminalError::NotRunning),
        };
        if let Some(refused) = refused {
            // Whoever asked may have gone.
            let _ = tell.send(Err(refused));
            return;
        }
        let data = json!({ "terminal": terminal.id, "command": told(&terminal.command) });
        let draft = Draft::platform(self.inner.clock.now(), AuditType::TerminalOpened, self.session, data);
        self.append(draft.by(&actor)).await;
        let _ = tell.send(Ok(()));
        let (exit, closed_by) = self.live.board.ended(terminal.id).await;
        let mut data = Map::from_iter([("terminal".to_owned(), json!(terminal.id))]);
        if let Some(TerminalExit { code, signal }) = exit {
            let known = [("code", code), ("signal", signal)];
            data.extend(known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?)))));
        }
        let draft = Draft::platform(self.inner.clock.now(), AuditType::TerminalClosed, self.session, data.into());
        self.append(match closed_by {
            Some(actor) => draft.by(&actor),
            None => draft,
        })
        .await;
    }

    async fn append(&self, draft: Draft) {
        self.live.record(&self.inner, self.session, vec![draft], "a terminal").await;
    }
}

/// A command as the audit log has it: its beginning.
fn told(command: &[String]) -> Vec<String> {
    let mut left = TOLD_BYTES;
    let mut words = Vec::new();
    for word in command {
        let cut = word.floor_char_boundary(left);
        words.push(if cut < word.len() { format!("{}…", &word[..cut]) } else { word.clone() });
        left -= cut;
        if cut < word.len() {
            break;
        }
    }
    words
}

impl From<NotBegun> for TerminalError {
    fn from(error: NotBegun) -> Self {
        match error {
            NotBegun::NotRunning => Self::NotRunning,
            NotBegun::TooMany => Self::TooMany,
            // The sandbox's own words: for whoever wrote the command, and bounded.
            NotBegun::Command(message) => {
                let message = message.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect::<String>();
                Self::Invalid(vec![FieldError::new("command[0]", format!("cannot be run: {message}"))])
            }
            NotBegun::Failed => Self::Failed,
        }
    }
}
