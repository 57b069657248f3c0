//! What the host wants of terminals.

use protocol::terminals::{TerminalCall, TerminalOp};

use super::{
    End, Supervisor,
    waiting::{Ready, Source},
};
use crate::{outbox::Outbox, terminals::Wrong};

impl Supervisor {
    pub(super) fn call_terminal(&mut self, call: TerminalCall) -> Result<(), End> {
        // They have ended with the program, as its end, which is on its way, will say.
        if self.ended.is_some() {
            return Ok(());
        }
        let Some(clerk) = &self.clerk else {
            return Err(End::Fault("the host asked for a terminal before the start".to_owned()));
        };
        let TerminalCall { terminal, op } = call;
        let done = match op {
            TerminalOp::Open(asked) => self
                .terminals
                .begin(terminal, asked)
                .and_then(|order| clerk.open_terminal(order).map_err(|_| Wrong("too many terminals are being opened"))),
            TerminalOp::Input(data) => self.terminals.input(terminal, &data),
            TerminalOp::Resize(size) => {
                self.terminals.resize(terminal, size);
                Ok(())
            }
            TerminalOp::Ack { bytes } => self.terminals.credit(terminal, bytes),
            TerminalOp::Close => {
                self.terminals.close(terminal);
                Ok(())
            }
        };
        done.map_err(|Wrong(why)| End::Fault(format!("from the host: {why}")))
    }

    pub(super) fn serve_terminals(&mut self, ready: &Ready, outbox: &mut Outbox) {
        if self.is_running() {
            self.terminals.serve(|number| ready.has(Source::Terminal(number)), &mut self.chunk, outbox);
        }
    }
}
