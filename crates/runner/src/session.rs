//! The one program of this sandbox: what the host asked for, and what was already said about it.

use protocol::{GuestFrame, Start, Turn};

use crate::{
    control::{self, Garbage, Message, StartError},
    outbox::Outbox,
    output::Budget,
    turns::{TurnError, Turns, Whom},
};

/// Results sent while the program, or a turn, runs. The host takes a few more than this; of the rest only the last is sent.
const LIVE_RESULTS: u32 = 500;

/// A program that was handed over, or is about to be.
#[derive(Debug)]
pub(crate) struct Session {
    id: String,
    /// What it may still write.
    pub(crate) budget: Budget,
    /// What its files may take, in bytes.
    pub(crate) disk_bytes: u64,
    /// What an interactive session has besides.
    pub(crate) turns: Option<Turns>,
    /// The messages to the language host, and how much of them is gone.
    message: Vec<u8>,
    sent: usize,
    started: bool,
    results_sent: u32,
    /// A result that was not sent yet. The next one replaces it.
    result: Option<Vec<u8>>,
}

impl Session {
    /// Takes the host's order.
    pub(crate) fn new(start: &Start, base_env: &[(&str, &str)]) -> Result<Self, StartError> {
        let message = control::encode_start(base_env, start)?;
        Ok(Self {
            id: start.session_id.clone(),
            budget: Budget::new(start.output_bytes),
            disk_bytes: start.disk_bytes,
            turns: start.interactive.then(Turns::default),
            message,
            sent: 0,
            started: false,
            results_sent: 0,
            result: None,
        })
    }

    /// What remains of the messages to the language host.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.message[self.sent..]
    }

    /// Notes that so much of it was written.
    pub(crate) fn wrote(&mut self, count: usize) {
        self.sent += count;
        // Before the start the message may be needed again.
        if self.started && self.sent == self.message.len() {
            // Gives back the memory that a large program took.
            (self.message, self.sent) = (Vec::new(), 0);
        }
    }

    /// Begins a turn, whose message goes behind what the language host has not taken yet.
    pub(crate) fn begin_turn(&mut self, turn: &Turn) -> Result<(), TurnError> {
        let turns = self.turns.as_mut().filter(|_| self.started).ok_or(TurnError::None)?;
        turns.begin(turn)?;
        self.message.extend(control::encode_turn(turn));
        Ok(())
    }

    /// Interrupts this turn, if it runs.
    pub(crate) fn interrupt_turn(&mut self, number: u32, whom: Whom) {
        if self.turns.as_mut().is_some_and(|turns| turns.interrupt(number, whom)) {
            self.message.extend(control::encode_interrupt(number));
        }
    }

    /// Notes that the language host is another one, which knows nothing yet.
    pub(crate) fn send_again(&mut self) {
        self.sent = 0;
    }

    /// Whether the language host has said that it runs the program.
    pub(crate) fn is_started(&self) -> bool {
        self.started
    }

    /// Takes what the language host says.
    pub(crate) fn hear(&mut self, message: Message, outbox: &mut Outbox) -> Result<(), Garbage> {
        match message {
            Message::Started if !self.started => {
                self.started = true;
                // Gives back the memory that a large program took.
                (self.message, self.sent) = (Vec::new(), 0);
                outbox.push(&GuestFrame::Started { session_id: self.id.clone() });
                Ok(())
            }
            Message::Result(json) if self.started => {
                self.result = Some(json);
                Ok(())
            }
            Message::Turned(turned) if self.started => {
                self.turns.as_mut().ok_or(Garbage)?.hear(turned);
                Ok(())
            }
            Message::Started | Message::Result(_) | Message::Turned(_) => Err(Garbage),
        }
    }

    /// Sends the end of a turn, if all that it wrote was sent.
    pub(crate) fn send_turned(&mut self, outbox: &mut Outbox) {
        let Some(turned) = self.turns.as_mut().and_then(Turns::finish) else { return };
        self.send_last_result(outbox);
        self.results_sent = 0;
        outbox.push(&GuestFrame::Turned(turned));
        outbox.flush_some();
    }

    /// Sends the newest result, unless the host is slow or has had enough of them.
    pub(crate) fn send_result(&mut self, outbox: &mut Outbox) {
        if self.results_sent < LIVE_RESULTS && outbox.has_room() {
            self.send_last_result(outbox);
        }
    }

    /// Sends the newest result in any case.
    pub(crate) fn send_last_result(&mut self, outbox: &mut Outbox) {
        if let Some(json) = self.result.take() {
            self.results_sent += 1;
            outbox.push(&GuestFrame::Result { json });
        }
    }

    /// The last frame.
    pub(crate) fn exited(&self, exit: protocol::Exit) -> GuestFrame {
        GuestFrame::Exited { session_id: self.id.clone(), exit }
    }
}
