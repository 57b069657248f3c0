//! Interactive sessions: their turns, and what is told of them.

use protocol::{GuestFrame, HostFrame, Stream, Turn, Turned};

use super::{Case, Open, Run};

impl Case {
    /// Starts an interactive session.
    pub(crate) fn interactive(mut self) -> (Open, Self) {
        self.start.interactive = true;
        let mut open = self.open();
        open.send(&HostFrame::Start(Box::new(self.start.clone())));
        loop {
            match open.next() {
                Some(GuestFrame::Started { .. }) => return (open, self),
                Some(_) => {}
                None => panic!("never started: {:?}", open.seen),
            }
        }
    }
}

impl Open {
    /// Sends a turn.
    pub(crate) fn begin(&mut self, number: u32, code: &str) {
        self.order.turn(number);
        self.send(&HostFrame::Turn(Turn { number, code: code.into() }));
    }

    /// Reads until the turn has ended; gives what came until then.
    pub(crate) fn turned(&mut self, number: u32) -> Told {
        let from = self.seen.len();
        loop {
            match self.next() {
                Some(GuestFrame::Turned(Turned { number: ended, report })) => {
                    assert_eq!(ended, number);
                    let report = serde_json::from_slice(&report).expect("a report is JSON");
                    let seen = &self.seen[from..];
                    let (stdout, stderr) = (Run::text(seen, Stream::Stdout), Run::text(seen, Stream::Stderr));
                    return Told { report, stdout, stderr };
                }
                Some(_) => {}
                None => panic!("ended instead of its turn: {:?}", &self.seen[from..]),
            }
        }
    }

    /// Runs a turn.
    pub(crate) fn run(&mut self, number: u32, code: &str) -> Told {
        self.begin(number, code);
        self.turned(number)
    }

    /// Begins a turn that writes and then goes on, and interrupts it once it has written.
    pub(crate) fn interrupt(&mut self, number: u32, code: &str) -> Told {
        self.begin(number, code);
        while !matches!(self.next().unwrap_or_else(|| panic!("ended: {:?}", self.seen)), GuestFrame::Output { .. }) {}
        self.send(&HostFrame::Interrupt { turn: number });
        self.turned(number)
    }
}

/// What was told of a turn.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) report: serde_json::Value,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Told {
    pub(crate) fn status(&self) -> &str {
        self.report["status"].as_str().expect("a status")
    }

    /// The value as text, of a turn that was completed.
    pub(crate) fn value(&self) -> Option<&str> {
        assert_eq!(self.status(), "completed", "{self:?}");
        self.report["value"]["text/plain"].as_str()
    }

    /// Name and text of its error.
    pub(crate) fn error(&self) -> (&str, &str) {
        let error = &self.report["error"];
        let part = |name| error[name].as_str().unwrap_or_else(|| panic!("no {name} in {self:?}"));
        (part("name"), part("value"))
    }

    pub(crate) fn traceback(&self) -> &str {
        self.report["error"]["traceback"].as_str().unwrap_or_else(|| panic!("no traceback in {self:?}"))
    }
}
