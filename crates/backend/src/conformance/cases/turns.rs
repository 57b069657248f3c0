//! Interactive sessions: one process, turns that share what it holds.

use model::Language;
use protocol::{Exit, HostFrame, Turn, Turned};
use serde_json::{Value, json};

use crate::conformance::{
    context::{Checked, Context, Failed, Given, Running, ensure},
    programs::Program,
};

const NONE: Program = Program::text("", "");
const ENDLESS: Program = Program::text("while True: pass", "while (true) {}");

struct Conversation {
    running: Running,
    language: Language,
    turns: u32,
}

impl Conversation {
    async fn start(context: &Context, prelude: Program) -> Checked<Self> {
        let given = Given { interactive: true, ..Given::default() };
        let mut running = context.start_with(prelude, context.limits(), given).await?;
        while !running.seen.started {
            running.next().await?;
        }
        Ok(Self { running, language: context.language, turns: 0 })
    }

    async fn begin(&mut self, code: Program) -> Checked {
        self.turns += 1;
        let turn = Turn { number: self.turns, code: code.source(self.language).to_owned() };
        Ok(self.running.sender.send(&HostFrame::Turn(turn)).await?)
    }

    async fn interrupt(&mut self, turn: u32) -> Checked {
        Ok(self.running.sender.send(&HostFrame::Interrupt { turn }).await?)
    }

    /// The report of the turn that was begun last.
    async fn turned(&mut self) -> Checked<Value> {
        loop {
            if let Some(Turned { number, report }) = self.running.seen.turned.pop() {
                ensure!(number == self.turns, "turn {} ended as {number}", self.turns);
                return Ok(serde_json::from_slice(&report)?);
            }
            self.running.next().await?;
        }
    }

    async fn run(&mut self, code: Program) -> Checked<Value> {
        self.begin(code).await?;
        self.turned().await
    }

    async fn is_worth(&mut self, code: Program, text: &str) -> Checked {
        let told = self.run(code).await?;
        let expected = json!({ "status": "completed", "value": { "text/plain": text }, "error": null });
        ensure!(told == expected, "{told} instead of {expected}");
        Ok(())
    }

    /// Ends it from outside.
    async fn close(self, context: &Context) -> Checked {
        context.remove(&self.running.id).await
    }
}

pub(super) async fn turns_share_what_they_set_and_tell_their_value(context: Context) -> Checked {
    let mut talk = Conversation::start(&context, Program::text("x = 20", "const x = 20")).await?;
    talk.is_worth(Program::text("y = x + 1\ny * 2", "let y = x + 1;\ny * 2"), "42").await?;
    talk.is_worth(Program::text("'t' + 'u'", "'t' + 'u'"), "'tu'").await?;
    let told = talk.run(Program::text("x = y", "const z = y")).await?;
    ensure!(told["status"] == "completed" && told["value"].is_null(), "{told}");
    talk.close(&context).await
}

pub(super) async fn what_a_turn_wrote_and_handed_in_comes_before_its_end(context: Context) -> Checked {
    let mut talk = Conversation::start(&context, NONE).await?;
    let source = |number: u32| match number {
        1 => Program::text("print('one')\nenclave.result(1)", "console.log('one')\nenclave.result(1)"),
        _ => Program::text("print('two')\nenclave.result(2)", "console.log('two')\nenclave.result(2)"),
    };
    for (number, stdout) in [(1, "one\n"), (2, "one\ntwo\n")] {
        let told = talk.run(source(number)).await?;
        let seen = &talk.running.seen;
        ensure!(told["status"] == "completed" && seen.stdout == stdout.as_bytes(), "{told}, {seen:?}");
        ensure!(seen.result.as_deref() == Some(number.to_string().as_bytes()), "{seen:?}");
    }
    talk.close(&context).await
}

pub(super) async fn a_failed_turn_is_told_and_the_session_lives(context: Context) -> Checked {
    let mut talk = Conversation::start(&context, Program::text("x = 1", "const x = 1")).await?;
    let told = talk.run(Program::text("nothing_of_this_name", "nothing_of_this_name")).await?;
    let name = match context.language {
        Language::Python => "NameError",
        Language::Node => "ReferenceError",
    };
    let error = &told["error"];
    ensure!(told["status"] == "failed" && error["name"] == name && error["value"].is_string(), "{told}");
    ensure!(error["traceback"].as_str().is_some_and(|trace| trace.contains(name)), "{told}");
    talk.is_worth(Program::text("x", "x"), "1").await?;
    talk.close(&context).await
}

pub(super) async fn an_endless_turn_is_interrupted_and_its_state_is_kept(context: Context) -> Checked {
    let mut talk = Conversation::start(&context, Program::text("x = 41", "let x = 41")).await?;
    for _ in 0..2 {
        talk.begin(ENDLESS).await?;
        talk.interrupt(talk.turns).await?;
        let told = talk.turned().await?;
        ensure!(told["status"] == "interrupted" && told["error"]["name"].is_string(), "{told}");
    }
    talk.is_worth(Program::text("x + 1", "x + 1"), "42").await?;
    talk.close(&context).await
}

pub(super) async fn an_interrupt_of_a_turn_that_has_ended_does_nothing(context: Context) -> Checked {
    let mut talk = Conversation::start(&context, NONE).await?;
    for _ in 0..10 {
        talk.is_worth(Program::text("1 + 1", "1 + 1"), "2").await?;
        talk.interrupt(talk.turns).await?;
        talk.interrupt(talk.turns + 7).await?;
    }
    talk.is_worth(Program::text("2 + 1", "2 + 1"), "3").await?;
    talk.close(&context).await
}

pub(super) async fn leaving_the_process_ends_the_session(context: Context) -> Checked {
    let mut talk = Conversation::start(&context, NONE).await?;
    talk.begin(Program::text("import os\nos._exit(7)", "process.exit(7)")).await?;
    let ended = talk.running.finish().await?;
    ended.exited(7)
}

pub(super) async fn a_prelude_that_fails_ends_the_session(context: Context) -> Checked {
    let given = Given { interactive: true, ..Given::default() };
    let prelude = Program::text("nothing_of_this_name", "nothing_of_this_name");
    let ended = context.start_with(prelude, context.limits(), given).await?.finish().await?;
    ensure!(ended.seen.exit == Some(Exit::Code(1)), "{ended:?}");
    let trace = String::from_utf8_lossy(&ended.seen.stderr);
    ensure!(trace.contains("nothing_of_this_name"), "trace: {trace}");
    Ok(())
}

pub(super) async fn a_turn_that_may_not_come_is_a_fault(context: Context) -> Checked {
    let mut talk = Conversation::start(&context, NONE).await?;
    talk.begin(ENDLESS).await?;
    talk.begin(ENDLESS).await?;
    while talk.running.seen.fault.is_none() {
        talk.running.next().await?;
    }
    context.backend.wait(&talk.running.id).await?;
    talk.close(&context).await?;
    let mut running = context.start(ENDLESS, context.limits()).await?;
    while !running.seen.started {
        running.next().await?;
    }
    match running.sender.send(&HostFrame::Turn(Turn { number: 1, code: String::new() })).await {
        Ok(()) => {}
        Err(error) => return Err(Failed(format!("{error:?}"))),
    }
    while running.seen.fault.is_none() {
        running.next().await?;
    }
    context.backend.wait(&running.id).await?;
    context.remove(&running.id).await
}
