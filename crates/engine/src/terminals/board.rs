//! The terminals of one session: where clients and the session's driver meet.
//!
//! The driver opens it when the program runs, asks it for frames, brings what the runner says, and closes it at the end.
//! What the runner says is hostile: it must be of a terminal that there is, and within the credit that it was given.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use protocol::{
    HostFrame, OrderError,
    terminals::{MAX_TERMINALS, OpenTerminal, TerminalCall, TerminalReply, TerminalSaid},
};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};
use wire::{Terminal, TerminalExit, TerminalId};

use super::screen::{Screen, Stage};

/// Terminals that have ended and can still be looked at.
const MAX_ENDED: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Board {
    state: Mutex<State>,
    /// Rung when there may be a frame for the runner.
    bell: Notify,
    /// Who records what becomes of them.
    records: TaskTracker,
}

#[derive(Debug, Default)]
pub(super) struct State {
    is_open: bool,
    screens: BTreeMap<u32, Screen>,
    /// The last number that was given to a terminal.
    last: u32,
    /// The terminal that a frame was taken from last: the others come first.
    served: u32,
    /// The last number that was given to a client.
    client: u64,
    /// When somebody last did something.
    active: Option<Instant>,
}

/// Why a terminal is not made.
#[derive(Debug)]
pub(crate) enum NotBegun {
    NotRunning,
    TooMany,
    /// Its command cannot be run, in the sandbox's words.
    Command(String),
    /// The sandbox has none.
    Failed,
}

/// A terminal that was asked for.
pub(super) struct Begun {
    pub(super) made: oneshot::Receiver<Result<(), NotBegun>>,
    /// Held until its end is recorded.
    pub(super) recording: TaskTrackerToken,
}

impl Board {
    /// Lets terminals be made.
    pub(crate) fn open(&self) {
        self.state().is_open = true;
    }

    /// The program is about to end, and everything with it.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.is_open = false;
        state.screens.retain(|_, screen| match &screen.stage {
            Stage::Asked(..) | Stage::Opening(_) => false,
            Stage::Running => {
                screen.finish(None);
                true
            }
            Stage::Ended(_) => true,
        });
    }

    /// Resolves when all that became of them is recorded. Only behind [`Board::close`].
    pub(crate) async fn recorded(&self) {
        self.records.close();
        self.records.wait().await;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state().is_open
    }

    /// When somebody last opened a terminal or typed into one.
    pub(crate) fn active(&self) -> Option<Instant> {
        self.state().active
    }

    /// The next frame for the runner, when there is one. Cancel-safe.
    pub(crate) async fn next(&self) -> HostFrame {
        loop {
            let rung = self.bell.notified();
            if let Some(frame) = self.state().next_frame() {
                return frame;
            }
            rung.await;
        }
    }

    /// Brings what the runner says.
    pub(crate) fn answer(&self, reply: TerminalReply) -> Result<(), OrderError> {
        let mut state = self.state();
        if !state.is_open {
            return Ok(());
        }
        let number = reply.terminal;
        let screen = state.screens.get_mut(&number).ok_or(OrderError::Unasked)?;
        match reply.said {
            TerminalSaid::Opened => screen.opened()?,
            TerminalSaid::NotOpened { is_command, message } => {
                let Some(Screen { stage: Stage::Opening(made), .. }) = state.screens.remove(&number) else {
                    return Err(OrderError::Unasked);
                };
                // Whoever asked may have gone.
                let _ = made.send(Err(if is_command { NotBegun::Command(message) } else { NotBegun::Failed }));
            }
            TerminalSaid::Output(data) => screen.output(&data)?,
            TerminalSaid::Took { bytes } => screen.took(bytes)?,
            TerminalSaid::Ended(exit) => {
                screen.exited(exit)?;
                state.forget_oldest();
            }
        }
        drop(state);
        // A terminal that was closed while it was made, or has room for more input.
        self.bell.notify_one();
        Ok(())
    }

    /// Asks for a terminal.
    pub(super) fn begin(&self, view: Terminal, open: OpenTerminal) -> Result<Begun, NotBegun> {
        let mut state = self.state();
        if !state.is_open {
            return Err(NotBegun::NotRunning);
        }
        if state.screens.values().filter(|screen| !screen.has_ended()).count() >= MAX_TERMINALS {
            return Err(NotBegun::TooMany);
        }
        let (tell, made) = oneshot::channel();
        state.last = state.last.checked_add(1).ok_or(NotBegun::TooMany)?;
        let number = state.last;
        state.screens.insert(number, Screen::new(view, open, tell));
        state.active = Some(Instant::now());
        let begun = Begun { made, recording: self.records.token() };
        drop(state);
        self.bell.notify_one();
        Ok(begun)
    }

    pub(super) fn views(&self) -> Vec<Terminal> {
        self.state().screens.values().map(|screen| screen.view.clone()).collect()
    }

    pub(super) fn view(&self, id: TerminalId) -> Option<Terminal> {
        self.state().find(id).map(|screen| screen.view.clone())
    }

    /// Asks for the end of a terminal; whether there is such a one.
    pub(super) fn close_terminal(&self, id: TerminalId, by: Option<String>) -> bool {
        let mut state = self.state();
        let Some(screen) = state.find(id) else { return false };
        let is_new = screen.close(by);
        drop(state);
        if is_new {
            self.bell.notify_one();
        }
        true
    }

    /// Resolves when a terminal has ended: how, if not with its session, and who asked for it.
    pub(super) async fn ended(&self, id: TerminalId) -> (Option<TerminalExit>, Option<String>) {
        loop {
            let mut changed = {
                let mut state = self.state();
                let Some(screen) = state.find(id) else { return (None, None) };
                if let Stage::Ended(exit) = &screen.stage {
                    return (*exit, screen.closed_by.clone());
                }
                screen.changed.subscribe()
            };
            // It was forgotten, if nobody can tell any more.
            let _ = changed.changed().await;
        }
    }

    /// Does something with a terminal that there is, and looks whether the runner has to know.
    pub(super) fn with<T>(&self, id: TerminalId, act: impl FnOnce(&mut Screen) -> T) -> Option<T> {
        let done = self.state().find(id).map(act);
        self.bell.notify_one();
        done
    }

    /// Notes that somebody did something.
    pub(super) fn touch(&self) {
        self.state().active = Some(Instant::now());
    }

    /// A number for a client.
    pub(super) fn client(&self) -> u64 {
        let mut state = self.state();
        state.client += 1;
        state.client
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find(&mut self, id: TerminalId) -> Option<&mut Screen> {
        self.screens.values_mut().find(|screen| screen.view.id == id)
    }

    fn next_frame(&mut self) -> Option<HostFrame> {
        if !self.is_open {
            return None;
        }
        let behind = self.screens.range(self.served + 1..).map(|(number, _)| *number);
        let order: Vec<_> = behind.chain(self.screens.range(..=self.served).map(|(number, _)| *number)).collect();
        order.into_iter().find_map(|terminal| {
            let op = self.screens.get_mut(&terminal)?.next_op()?;
            self.served = terminal;
            Some(HostFrame::Terminal(TerminalCall { terminal, op }))
        })
    }

    /// Lets go of the oldest that have ended, unless somebody still looks.
    fn forget_oldest(&mut self) {
        let ended: Vec<_> =
            self.screens.iter().filter(|(_, screen)| screen.has_ended()).map(|(number, _)| *number).collect();
        let surplus = ended.len().saturating_sub(MAX_ENDED);
        let unwatched = ended.into_iter().filter(|number| !self.screens[number].is_watched()).take(surplus);
        for number in unwatched.collect::<Vec<_>>() {
            self.screens.remove(&number);
        }
    }
}
