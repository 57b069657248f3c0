//! The order in which an honest runner sends its frames, checked on the host.
//!
//! `Hello, Started, (Output | Result | Exceeded | Turned)*, Exited`, with one `Turned` at most for each turn that the host
//! sent, and none before it; `Fault` may stand instead of anything after `Hello`, `NotPut`
//! instead of `Started`. `File` answers calls from `Started` on, and behind `Exited` where the runner stays; that somebody
//! waits for each of them is for who has sent the calls to check, with [`OrderError::Unasked`] for the others. So it is with
//! `Terminal`, which comes from `Started` to `Exited`.

use crate::{
    files,
    frame::{
        GuestFrame, MAX_FAULT_BYTES, MAX_RESULT_BYTES, MAX_TURN_REPORT_BYTES, OUTPUT_CHUNK_BYTES, Turned, VERSION,
    },
    terminals,
};

/// Results that one run may send, or one turn of an interactive session; only the last counts, so this bounds what a flood of them can cost.
const MAX_RESULTS: u32 = 1000;

/// What was wrong with a frame that decoded well. Ends the session as faulted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// A frame that may not come now.
    #[error("unexpected {0} frame")]
    Unexpected(&'static str),
    /// A runner of another version.
    #[error("runner speaks protocol version {0}, this host speaks {VERSION}")]
    Version(u16),
    /// A frame that names a session other than the one that this pipe belongs to.
    #[error("runner answered for another session")]
    OtherSession,
    /// More bytes in one frame, or more frames of a kind, than an honest runner sends.
    #[error("oversized or too many {0} frames")]
    Excessive(&'static str),
    /// An answer to a call that was not made, or was answered already, or of another kind than was asked for.
    #[error("an answer that nobody waits for")]
    Unasked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    New,
    Ready,
    Running,
    Ended,
}

/// Checks frames in the order they come in.
#[derive(Debug)]
pub struct GuestOrder {
    step: Step,
    results: u32,
    /// The number of the last turn that the host sent.
    turn: u32,
    /// The number of the last turn that has ended.
    turned: u32,
    session_id: Option<String>,
}

impl Default for GuestOrder {
    fn default() -> Self {
        Self::new()
    }
}

impl GuestOrder {
    /// Before the first frame.
    pub fn new() -> Self {
        Self { step: Step::New, results: 0, turn: 0, turned: 0, session_id: None }
    }

    /// After a `Hello` that somebody else has checked (the backend, while it prepared the sandbox).
    pub fn after_hello() -> Self {
        Self { step: Step::Ready, ..Self::new() }
    }

    /// Says which session was started over this pipe. Until then every frame but `Hello` is out of order.
    pub fn assign(&mut self, session_id: &str) {
        self.session_id = Some(session_id.to_owned());
    }

    /// Says that the turn of this number was sent. Without, none may be said to have ended.
    pub fn turn(&mut self, number: u32) {
        self.turn = number;
    }

    /// Accepts the frame or says what is wrong with it.
    pub fn check(&mut self, frame: &GuestFrame) -> Result<(), OrderError> {
        match (frame, self.step) {
            (GuestFrame::Hello { version }, Step::New) => {
                if *version != VERSION {
                    return Err(OrderError::Version(*version));
                }
                self.step = Step::Ready;
            }
            (GuestFrame::Started { session_id }, Step::Ready) => {
                self.belongs(session_id)?;
                self.step = Step::Running;
            }
            (GuestFrame::Output { data, .. }, Step::Running) => {
                if data.is_empty() || data.len() > OUTPUT_CHUNK_BYTES {
                    return Err(OrderError::Excessive("output"));
                }
            }
            (GuestFrame::Result { json }, Step::Running) => {
                self.results += 1;
                if json.len() > MAX_RESULT_BYTES || self.results > MAX_RESULTS {
                    return Err(OrderError::Excessive("result"));
                }
            }
            (GuestFrame::Exceeded { .. }, Step::Running) => {}
            (GuestFrame::Turned(Turned { number, report }), Step::Running) => {
                if *number != self.turn || *number <= self.turned {
                    return Err(OrderError::Unexpected("turned"));
                }
                if report.len() > MAX_TURN_REPORT_BYTES {
                    return Err(OrderError::Excessive("turned"));
                }
                (self.turned, self.results) = (*number, 0);
            }
            (GuestFrame::Exited { session_id, .. }, Step::Running) => {
                self.belongs(session_id)?;
                self.step = Step::Ended;
            }
            (GuestFrame::Fault { message }, Step::Ready | Step::Running) => {
                if message.len() > MAX_FAULT_BYTES {
                    return Err(OrderError::Excessive("fault"));
                }
                self.step = Step::Ended;
            }
            (GuestFrame::NotPut { message, .. }, Step::Ready) if self.session_id.is_some() => {
                if message.len() > MAX_FAULT_BYTES {
                    return Err(OrderError::Excessive("not put"));
                }
                self.step = Step::Ended;
            }
            (GuestFrame::File(reply), Step::Running | Step::Ended) => {
                reply.check().map_err(|files::Oversized| OrderError::Excessive("file"))?;
            }
            (GuestFrame::Terminal(reply), Step::Running) => {
                reply.check().map_err(|terminals::Oversized| OrderError::Excessive("terminal"))?;
            }
            (other, _) => return Err(OrderError::Unexpected(name(other))),
        }
        Ok(())
    }

    fn belongs(&self, session_id: &str) -> Result<(), OrderError> {
        match &self.session_id {
            None => Err(OrderError::Unexpected("started")),
            Some(own) if own == session_id => Ok(()),
            Some(_) => Err(OrderError::OtherSession),
        }
    }
}

fn name(frame: &GuestFrame) -> &'static str {
    match frame {
        GuestFrame::Hello { .. } => "hello",
        GuestFrame::Started { .. } => "started",
        GuestFrame::Output { .. } => "output",
        GuestFrame::Result { .. } => "result",
        GuestFrame::Exceeded { .. } => "exceeded",
        GuestFrame::Exited { .. } => "exited",
        GuestFrame::Fault { .. } => "fault",
        GuestFrame::NotPut { .. } => "not put",
        GuestFrame::Turned(_) => "turned",
        GuestFrame::File(_) => "file",
        GuestFrame::Terminal(_) => "terminal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        files::{FILE_CHUNK_BYTES, FileDone, FileReply},
        frame::{Exit, NotPut, Stream},
        terminals::{TERMINAL_CHUNK_BYTES, TerminalReply, TerminalSaid},
    };

    fn running() -> GuestOrder {
        let mut order = GuestOrder::after_hello();
        order.assign("ses_1");
        order.check(&GuestFrame::Started { session_id: "ses_1".into() }).expect("in order");
        order
    }

    #[test]
    fn an_honest_run_passes() {
        let mut order = GuestOrder::new();
        order.check(&GuestFrame::Hello { version: VERSION }).expect("hello");
        order.assign("ses_1");
        order.check(&GuestFrame::Started { session_id: "ses_1".into() }).expect("started");
        order.check(&GuestFrame::Output { stream: Stream::Stdout, data: vec![1] }).expect("output");
        order.check(&GuestFrame::Result { json: b"1".to_vec() }).expect("result");
        order.check(&GuestFrame::Exited { session_id: "ses_1".into(), exit: Exit::Code(0) }).expect("exited");
    }

    #[test]
    fn nothing_may_follow_the_exit() {
        let mut order = running();
        let exited = GuestFrame::Exited { session_id: "ses_1".into(), exit: Exit::Code(0) };
        order.check(&exited).expect("in order");
        assert_eq!(order.check(&exited), Err(OrderError::Unexpected("exited")));
        assert_eq!(order.check(&GuestFrame::Result { json: b"1".to_vec() }), Err(OrderError::Unexpected("result")));
    }

    #[test]
    fn a_runner_cannot_answer_for_another_session() {
        let mut order = running();
        assert_eq!(
            order.check(&GuestFrame::Exited { session_id: "ses_2".into(), exit: Exit::Code(0) }),
            Err(OrderError::OtherSession)
        );
    }

    #[test]
    fn a_second_hello_an_early_start_and_another_version_are_refused() {
        let hello = GuestFrame::Hello { version: VERSION };
        assert_eq!(running().check(&hello), Err(OrderError::Unexpected("hello")));
        assert_eq!(
            GuestOrder::after_hello().check(&GuestFrame::Started { session_id: "ses_1".into() }),
            Err(OrderError::Unexpected("started"))
        );
        assert_eq!(GuestOrder::new().check(&GuestFrame::Hello { version: 9 }), Err(OrderError::Version(9)));
    }

    #[test]
    fn oversized_and_endless_frames_are_refused() {
        let mut order = running();
        let big = GuestFrame::Output { stream: Stream::Stdout, data: vec![0; OUTPUT_CHUNK_BYTES + 1] };
        assert_eq!(order.check(&big), Err(OrderError::Excessive("output")));
        let result = GuestFrame::Result { json: b"1".to_vec() };
        let refused = (0..=MAX_RESULTS).find_map(|_| order.check(&result).err());
        assert_eq!(refused, Some(OrderError::Excessive("result")));
    }

    #[test]
    fn a_turn_ends_once_and_only_after_it_was_sent() {
        let turned = |number| GuestFrame::Turned(Turned { number, report: b"{}".to_vec() });
        let mut order = running();
        assert_eq!(order.check(&turned(0)), Err(OrderError::Unexpected("turned")));
        assert_eq!(order.check(&turned(1)), Err(OrderError::Unexpected("turned")));
        order.turn(1);
        order.check(&turned(1)).expect("in order");
        assert_eq!(order.check(&turned(1)), Err(OrderError::Unexpected("turned")));
        order.turn(3);
        for other in [1, 2, 4] {
            assert_eq!(order.check(&turned(other)), Err(OrderError::Unexpected("turned")));
        }
        order.check(&turned(3)).expect("in order");
    }

    #[test]
    fn the_report_of_a_turn_and_its_results_are_bounded() {
        let mut order = running();
        for number in 1..=2 {
            order.turn(number);
            for _ in 0..MAX_RESULTS {
                order.check(&GuestFrame::Result { json: b"1".to_vec() }).expect("in order");
            }
            let report = vec![b' '; MAX_TURN_REPORT_BYTES];
            order.check(&GuestFrame::Turned(Turned { number, report })).expect("it fits");
        }
        order.turn(3);
        let report = vec![b' '; MAX_TURN_REPORT_BYTES + 1];
        let turned = GuestFrame::Turned(Turned { number: 3, report });
        assert_eq!(order.check(&turned), Err(OrderError::Excessive("turned")));
    }

    #[test]
    fn the_last_words_of_a_runner_are_bounded() {
        let fault = |bytes| GuestFrame::Fault { message: "x".repeat(bytes) };
        running().check(&fault(MAX_FAULT_BYTES)).expect("it fits");
        assert_eq!(running().check(&fault(MAX_FAULT_BYTES + 1)), Err(OrderError::Excessive("fault")));
    }

    #[test]
    fn files_are_answered_while_the_program_runs_and_behind_it_and_never_before() {
        let answer = |bytes| GuestFrame::File(FileReply { id: 1, outcome: Ok(FileDone::Read(vec![0; bytes])) });
        let mut order = running();
        order.check(&answer(1)).expect("in order");
        assert_eq!(order.check(&answer(FILE_CHUNK_BYTES + 1)), Err(OrderError::Excessive("file")));
        order.check(&GuestFrame::Exited { session_id: "ses_1".into(), exit: Exit::Code(0) }).expect("in order");
        order.check(&answer(1)).expect("in order");
        assert_eq!(GuestOrder::after_hello().check(&answer(1)), Err(OrderError::Unexpected("file")));
    }

    #[test]
    fn terminals_are_told_of_while_the_program_runs_alone() {
        let output = |bytes| {
            let said = TerminalSaid::Output(vec![0; bytes]);
            GuestFrame::Terminal(TerminalReply { terminal: 1, said })
        };
        let mut order = running();
        order.check(&output(1)).expect("in order");
        assert_eq!(order.check(&output(TERMINAL_CHUNK_BYTES + 1)), Err(OrderError::Excessive("terminal")));
        assert_eq!(order.check(&output(0)), Err(OrderError::Excessive("terminal")));
        order.check(&GuestFrame::Exited { session_id: "ses_1".into(), exit: Exit::Code(0) }).expect("in order");
        assert_eq!(order.check(&output(1)), Err(OrderError::Unexpected("terminal")));
        assert_eq!(GuestOrder::after_hello().check(&output(1)), Err(OrderError::Unexpected("terminal")));
    }

    #[test]
    fn a_file_can_fail_before_the_start_alone_and_nothing_follows() {
        let not_put = |bytes| GuestFrame::NotPut { reason: NotPut::NoSpace, message: "x".repeat(bytes) };
        let assigned = || {
            let mut order = GuestOrder::after_hello();
            order.assign("ses_1");
            order
        };
        let mut order = assigned();
        order.check(&not_put(MAX_FAULT_BYTES)).expect("in order");
        let started = GuestFrame::Started { session_id: "ses_1".into() };
        assert_eq!(order.check(&started), Err(OrderError::Unexpected("started")));
        assert_eq!(assigned().check(&not_put(MAX_FAULT_BYTES + 1)), Err(OrderError::Excessive("not put")));
        assert_eq!(running().check(&not_put(1)), Err(OrderError::Unexpected("not put")));
        assert_eq!(GuestOrder::after_hello().check(&not_put(1)), Err(OrderError::Unexpected("not put")));
    }
}
