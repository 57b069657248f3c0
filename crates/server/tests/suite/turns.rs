//! Conversations with real sandboxes, in both languages.

use std::time::{Duration, Instant};

use client::Client;
use serde_json::json;
use wire::{
    CreateSession, CreateTurn, ExecMode, Interactive, InterruptedBy, KillReason, Language, Outcome, Phase, SessionId,
    Turn, TurnStatus,
};

use crate::server::{Server, backends};

/// How long what has to come may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// A conversation on a server.
struct Talk {
    client: Client,
    session: SessionId,
    _server: Server,
}

/// What is said to each language.
struct Words {
    language: Language,
    /// Sets x to 20, and shows that it did.
    set: &'static str,
    /// Has x + 1 as its value.
    read: &'static str,
    /// Gives x to `enclave.result`.
    give: &'static str,
    endless: &'static str,
    raise: &'static str,
    raised: &'static str,
    leave_a_file: &'static str,
    read_it: &'static str,
}

const PYTHON: Words = Words {
    language: Language::Python,
    set: "x = 20\nprint('set')",
    read: "x + 1",
    give: "enclave.result({'x': x})",
    endless: "while True: pass",
    raise: "def f(): return 1 / 0\nf()",
    raised: "ZeroDivisionError",
    leave_a_file: "open('left.txt', 'w').write('left')",
    read_it: "open('left.txt').read()",
};

const NODE: Words = Words {
    language: Language::Node,
    set: "let x = 20; console.log('set')",
    read: "x + 1",
    give: "enclave.result({x: x})",
    endless: "for (;;) {}",
    raise: "function f() { null.y }\nf()",
    raised: "TypeError",
    leave_a_file: "require('fs').writeFileSync('left.txt', 'left')",
    read_it: "require('fs').readFileSync('left.txt', 'utf8')",
};

impl Talk {
    async fn start(backend: &str, language: Language, bounds: Interactive) -> Self {
        let server = Server::start(backend, &[]).await;
        let client = server.client();
        let request = CreateSession {
            exec_mode: ExecMode::Interactive,
            interactive: Some(bounds),
            language,
            ..CreateSession::default()
        };
        let session = client.create(&request).await.unwrap().id;
        Self { client, session, _server: server }
    }

    async fn turn(&self, code: &str) -> Turn {
        self.turn_within(code, None).await
    }

    async fn turn_within(&self, code: &str, timeout_ms: Option<u64>) -> Turn {
        let asked = CreateTurn { code: code.into(), timeout_ms };
        self.client.run_turn(self.session, &asked).await.unwrap()
    }
}

fn plain(turn: &Turn) -> &str {
    turn.value.as_ref().and_then(|value| value.plain.as_deref()).unwrap_or_default()
}

async fn a_conversation(words: &Words) {
    let talk = Talk::start("gvisor", words.language, Interactive::default()).await;
    let set = talk.turn(words.set).await;
    assert_eq!((set.status, set.stdout_tail.as_str(), set.number), (TurnStatus::Completed, "set\n", 1), "{set:?}");
    let read = talk.turn(words.read).await;
    assert_eq!((plain(&read), read.stdout_tail.as_str()), ("21", ""), "{read:?}");
    let gave = talk.turn(words.give).await;
    assert_eq!(gave.result.as_ref().map(wire::JsonText::value), Some(json!({ "x": 20 })), "{gave:?}");

    let endless = talk.turn_within(words.endless, Some(300)).await;
    let how = (endless.status, endless.interrupted_by);
    assert_eq!(how, (TurnStatus::Interrupted, Some(InterruptedBy::Timeout)), "{endless:?}");
    assert_eq!(plain(&talk.turn(words.read).await), "21", "x is still there");
    let raised = talk.turn(words.raise).await;
    let error = raised.error.as_ref().unwrap();
    assert_eq!((raised.status, error.name.as_str()), (TurnStatus::Failed, words.raised), "{raised:?}");
    assert!(error.traceback.contains(words.raised), "{error:?}");
    talk.turn(words.leave_a_file).await;
    let left = talk.turn(words.read_it).await;
    assert!(plain(&left).contains("left"), "{left:?}");

    let number = left.number + 1;
    let (client, session, asked) =
        (talk.client.clone(), talk.session, CreateTurn { code: words.endless.into(), timeout_ms: None });
    let asking = tokio::spawn(async move { client.run_turn(session, &asked).await });
    let began = Instant::now();
    while !talk.client.turn(session, number, Duration::ZERO).await.is_ok_and(|turn| turn.status == TurnStatus::Running)
    {
        assert!(began.elapsed() < PATIENCE, "it never ran");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    talk.client.interrupt_turn(session, number).await.unwrap();
    let interrupted = asking.await.unwrap().unwrap();
    let how = (interrupted.status, interrupted.interrupted_by);
    assert_eq!(how, (TurnStatus::Interrupted, Some(InterruptedBy::Caller)), "{interrupted:?}");
    assert_eq!(plain(&talk.turn(words.read).await), "21");

    let ended = talk.client.delete(session).await.unwrap();
    assert_eq!((ended.outcome, ended.phase), (Some(Outcome::Cancelled), Phase::TornDown));
    assert_eq!(talk.client.result(session, PATIENCE).await.unwrap().value(), Some(json!({ "x": 20 })));
    let turns = talk.client.turns(session, None).await.unwrap().items;
    assert_eq!(turns.len(), usize::try_from(number).unwrap() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_keeps_its_state_through_errors_and_interrupts() {
    if backends("a_conversation").contains(&"gvisor") {
        a_conversation(&PYTHON).await;
        a_conversation(&NODE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulator_models_a_conversation() {
    for (language, set, hang) in
        [(Language::Python, "x = 20", "while True: pass"), (Language::Node, "let x = 20", "for (;;) {}")]
    {
        let talk = Talk::start("simulator", language, Interactive::default()).await;
        talk.turn(set).await;
        let endless = talk.turn_within(hang, Some(100)).await;
        let how = (endless.status, endless.interrupted_by);
        assert_eq!(how, (TurnStatus::Interrupted, Some(InterruptedBy::Timeout)), "{endless:?}");
        assert_eq!(plain(&talk.turn("x + 1").await), "21", "x is still there");
        let gave = talk
            .turn(
                "# sim: result {\"x\": 20}".replace('#', if language == Language::Node { "//" } else { "#" }).as_str(),
            )
            .await;
        assert_eq!(gave.result.as_ref().map(wire::JsonText::value), Some(json!({ "x": 20 })), "{gave:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bound_of_a_conversation_ends_it_for_real() {
    if !backends("each_bound").contains(&"gvisor") {
        return;
    }
    let stubborn = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass";
    let bounds = Interactive::default();
    for (bounds, code, reason) in [
        (Interactive { idle_ttl_ms: Some(700), ..bounds }, None, KillReason::IdleTtlExceeded),
        (
            Interactive { max_lifetime_ms: Some(2500), ..bounds },
            Some("import time; time.sleep(60)"),
            KillReason::MaxLifetimeExceeded,
        ),
        (Interactive { turn_budget_ms: Some(400), ..bounds }, Some("while True: pass"), KillReason::TurnBudgetExceeded),
        (Interactive { turn_timeout_ms: Some(300), ..bounds }, Some(stubborn), KillReason::TurnTimeoutExceeded),
    ] {
        let talk = Talk::start("gvisor", Language::Python, bounds).await;
        if let Some(code) = code {
            assert_eq!(talk.turn(code).await.status, TurnStatus::Aborted, "{reason:?}");
        }
        let result = talk.client.result(talk.session, PATIENCE).await.unwrap();
        assert_eq!((result.outcome, result.kill_reason), (Outcome::Killed, Some(reason)));
    }
}
