//! An interactive session: its prelude, then turns as they come, one at a time.

use model::Language;
use protocol::{Exit, GuestFrame, HostFrame, Stream, Turn, Turned};

use super::{
    Play, Stop, fault,
    frames::{Heard, HostFrames},
};
use crate::simulator::{
    inside,
    program::{Instruction, Program},
    script,
    turns::{self, Outcome, Raised, Step, Variables},
};

/// What a piece of code came to.
enum Played {
    Ended(Outcome),
    /// The session's process has ended.
    Exited(Exit),
}

impl Play<'_> {
    /// Runs until the session's process ends.
    /// Gives whether the host ended it.
    pub(super) async fn converse(&mut self, from_host: &mut HostFrames<'_>) -> Result<bool, Stop> {
        self.confirm().await?;
        let mut variables = Variables::default();
        let code = &self.start.code;
        let exit = match self.play_piece(code, &mut variables).await? {
            Played::Exited(exit) => exit,
            Played::Ended(Outcome::Completed(_) | Outcome::Interrupted) => {
                match self.take_turns(from_host, variables).await? {
                    Some(exit) => exit,
                    None => return Ok(true),
                }
            }
            Played::Ended(Outcome::Failed(Raised { name, value })) => {
                let trace = inside::trace(self.language, &format!("{name}: {value}"), 1);
                self.outbox.output(Stream::Stderr, trace.as_bytes()).await?;
                Exit::Code(1)
            }
        };
        self.end(exit).await.map(|()| false)
    }

    async fn take_turns(
        &mut self,
        from_host: &mut HostFrames<'_>,
        mut variables: Variables,
    ) -> Result<Option<Exit>, Stop> {
        let mut last = 0;
        loop {
            self.outbox.flush().await?;
            let Turn { number, code } = match from_host.next(self.outbox).await? {
                HostFrame::Turn(turn) if turn.number > last => turn,
                HostFrame::Interrupt { .. } => continue,
                HostFrame::Stop => return Ok(None),
                HostFrame::Turn(_)
                | HostFrame::Start(_)
                | HostFrame::Put(_)
                | HostFrame::File(_)
                | HostFrame::Terminal(_) => return self.refuse().await,
            };
            last = number;
            let played = {
                let piece = self.play_piece(&code, &mut variables);
                let (played, heard) = tokio::select! {
                    biased;
                    played = piece => (Some(played?), Heard::Interrupted),
                    heard = from_host.heard(number) => (None, heard?),
                };
                match heard {
                    Heard::Interrupted => played,
                    Heard::Stop => return Ok(None),
                    Heard::Unexpected => return self.refuse().await,
                }
            };
            let outcome = match played {
                Some(Played::Exited(exit)) => return Ok(Some(exit)),
                Some(Played::Ended(outcome)) => outcome,
                None => {
                    self.sandbox.put_out();
                    Outcome::Interrupted
                }
            };
            if let Some(json) = self.last_result.take() {
                self.outbox.say(&GuestFrame::Result { json }).await?;
            }
            self.results = 0;
            let report = turns::report(&outcome, number);
            self.outbox.say(&GuestFrame::Turned(Turned { number, report })).await?;
        }
    }

    async fn refuse(&mut self) -> Result<Option<Exit>, Stop> {
        match fault(self.outbox, "the host sent what may not come while turns are taken".to_owned()).await? {}
    }

    async fn play_piece(&mut self, code: &str, variables: &mut Variables) -> Result<Played, Stop> {
        let scripted = script::read(code, self.language).is_some();
        let mut value = None;
        for step in turns::steps(code, self.language, self.gateway.is_some()) {
            let done = match step {
                Step::Set(name, expression) => {
                    variables.evaluate(&expression, self.language).and_then(|value| variables.set(&name, value))
                }
                Step::Value(expression) => {
                    variables.evaluate(&expression, self.language).map(|told| value = Some(told))
                }
                Step::Print(expression) => match variables.evaluate(&expression, self.language) {
                    Ok(value) => {
                        self.outbox.output(Stream::Stdout, format!("{}\n", value.text()).as_bytes()).await?;
                        Ok(())
                    }
                    Err(raised) => Err(raised),
                },
                Step::Play(program) => match self.play_part(&program, scripted, code).await? {
                    Ok(None) => Ok(()),
                    Ok(Some(exit)) => return Ok(Played::Exited(exit)),
                    Err(raised) => Err(raised),
                },
            };
            if let Err(raised) = done {
                return Ok(Played::Ended(Outcome::Failed(raised)));
            }
        }
        Ok(Played::Ended(Outcome::Completed(value)))
    }

    /// Plays what is no expression. Gives the exit of the process, if it ends it.
    async fn play_part(
        &mut self,
        program: &Program,
        scripted: bool,
        code: &str,
    ) -> Result<Result<Option<Exit>, Raised>, Stop> {
        let mut at = 0;
        loop {
            let Some(instruction) = program.instructions.get(at) else {
                let Some(again) = program.again else { return Ok(Ok(None)) };
                at = again;
                continue;
            };
            at += 1;
            // As in a shell of Python's: what only asks to leave is an error.
            if let Instruction::Exit(asked) = instruction
                && !scripted
                && self.language == Language::Python
                && !code.contains("os._exit")
            {
                return Ok(Err(Raised { name: "SystemExit".to_owned(), value: asked.to_string() }));
            }
            let exit = self.step(instruction).await?;
            if let Some(text) = self.raised.take() {
                let (name, value) = text.split_once(": ").unwrap_or((&text, ""));
                return Ok(Err(Raised { name: name.to_owned(), value: value.to_owned() }));
            }
            if exit.is_some() {
                return Ok(Ok(exit));
            }
        }
    }
}
