//! Conversations: turns in order, told once and truthfully, whoever waits for them.

use std::time::Duration;

use engine::{Config, CreateRequest, TurnError, TurnFilter, TurnWaiter};
use futures::StreamExt as _;
use store::Store as _;
use wire::{
    AuditType, CreateSession, CreateTurn, ExecMode, FaultCode, FrameKind, Interactive, InterruptedBy, Outcome, Session,
    Turn, TurnStatus,
};

use super::{
    backend::Wrapped,
    support::{World, quick, world_on},
};

pub(crate) async fn talking() -> World {
    world_on(quick(), Wrapped::talking).await
}

pub(crate) fn interactive(bounds: Interactive) -> CreateRequest {
    let request =
        CreateSession { exec_mode: ExecMode::Interactive, interactive: Some(bounds), ..CreateSession::default() };
    CreateRequest { request, shape_faults: Vec::new(), idempotency: None, uploads: None }
}

impl World {
    /// A conversation that runs.
    pub(crate) async fn converse(&self, bounds: Interactive) -> Session {
        let session = self.engine.create(&self.caller, interactive(bounds)).await.unwrap();
        self.running(&session).await;
        self.now(&session).await
    }

    pub(crate) async fn ask(&self, session: &Session, code: &str) -> Result<TurnWaiter, TurnError> {
        let asked = CreateTurn { code: code.into(), timeout_ms: None };
        self.engine.take_turn(&self.caller, session.id, asked, Vec::new()).await
    }

    pub(crate) async fn turn(&self, session: &Session, code: &str) -> Turn {
        self.ask(session, code).await.unwrap().ended().await.unwrap()
    }

    /// Waits until the turn of this number runs.
    pub(crate) async fn runs(&self, session: &Session, number: u32) {
        let mut frames = self.engine.stream(&self.caller, session.id, 0).await.unwrap();
        let begun = format!(r#"{{"number":{number},"status":"running""#);
        while let Some(frame) = frames.next().await {
            if frame.kind == FrameKind::Turn && frame.data.starts_with(&begun) {
                return;
            }
        }
        panic!("turn {number} never ran");
    }

    pub(crate) async fn recorded(&self, session: &Session) -> Vec<Turn> {
        let filter = TurnFilter { session: session.id, cursor: None, limit: 100 };
        self.engine.turns(&self.caller, filter).await.unwrap().items
    }
}

fn status(turns: &[Turn]) -> Vec<TurnStatus> {
    turns.iter().map(|turn| turn.status).collect()
}

#[tokio::test]
async fn turns_run_in_order_and_are_told_as_they_ended() {
    let world = talking().await;
    let session = world.converse(Interactive::default()).await;
    let first = world.turn(&session, "say hello\nvalue 2\ngive {\"a\": 1}").await;
    assert_eq!((first.number, first.status, first.stdout_tail.as_str()), (1, TurnStatus::Completed, "hello\n"));
    assert_eq!(first.value.as_ref().unwrap().plain.as_deref(), Some("2"));
    assert_eq!(first.result.as_ref().unwrap().as_str(), r#"{"a":1}"#);
    assert!(first.started_at.is_some() && first.finished_at.is_some() && first.duration_ms.is_some());
    let second = world.turn(&session, "say again\nraise KeyError").await;
    assert_eq!((second.number, second.status, second.stdout_tail.as_str()), (2, TurnStatus::Failed, "again\n"));
    assert_eq!((second.error.as_ref().unwrap().name.as_str(), &second.result), ("KeyError", &None));
    assert_eq!(world.recorded(&session).await, [first, second]);

    world.engine.cancel(&world.caller, session.id).await.unwrap();
    let (_, result, trail) = world.end_of(&session).await;
    assert_eq!((result.outcome, result.value()), (Outcome::Cancelled, Some(serde_json::json!({"a": 1}))));
    assert_eq!(result.stdout_tail, "hello\nagain\n");
    let turns = [AuditType::TurnStarted, AuditType::TurnCompleted].repeat(2);
    assert_eq!(trail[3..7], turns, "{trail:?}");
    let refused = world.ask(&session, "value 3").await.unwrap_err();
    assert!(matches!(refused, TurnError::WrongState(_)), "{refused:?}");
}

#[tokio::test]
async fn a_turn_streams_its_own_output_and_then_itself() {
    let world = talking().await;
    let session = world.converse(Interactive::default()).await;
    world.turn(&session, "say before").await;
    let waiter = world.ask(&session, "say mine\nvalue 1").await.unwrap();
    let frames: Vec<_> = waiter.frames().collect().await;
    let kinds: Vec<_> = frames.iter().map(|frame| frame.kind).collect();
    let own = [FrameKind::Turn, FrameKind::Stdout, FrameKind::Turn, FrameKind::End];
    // It may still have been waiting when its stream began.
    assert_eq!(kinds[kinds.len() - 4..], own, "{frames:?}");
    let written: Vec<_> = frames.iter().filter(|frame| frame.kind == FrameKind::Stdout).collect();
    assert!(written[0].data.contains("mine") && written.len() == 1, "{frames:?}");
    let turn: Turn = serde_json::from_str(&frames.last().unwrap().data).unwrap();
    assert_eq!(turn, world.recorded(&session).await[1]);
    let late = world.engine.turn(&world.caller, session.id, 2, Duration::ZERO).await.unwrap();
    assert_eq!(late, turn);
}

#[tokio::test]
async fn the_queue_is_bounded_and_those_in_it_run_in_their_order() {
    let world = talking().await;
    let session = world.converse(Interactive::default()).await;
    let mut waiters = vec![world.ask(&session, "hang").await.unwrap()];
    for _ in 0..16 {
        waiters.push(world.ask(&session, "value x").await.unwrap());
    }
    let full = world.ask(&session, "value y").await.unwrap_err();
    assert!(matches!(full, TurnError::QueueFull { waiting: 16 }), "{full:?}");
    let queued = world.engine.turn(&world.caller, session.id, 9, Duration::ZERO).await.unwrap();
    assert_eq!((queued.status, queued.started_at), (TurnStatus::Queued, None));
    world.runs(&session, 1).await;
    world.engine.interrupt_turn(&world.caller, session.id, 1).await.unwrap();
    for (number, waiter) in (1..).zip(waiters) {
        let turn = waiter.ended().await.unwrap();
        assert_eq!(turn.number, number);
        let expected = if number == 1 { TurnStatus::Interrupted } else { TurnStatus::Completed };
        assert_eq!(turn.status, expected);
    }
    let recorded = world.recorded(&session).await;
    let times: Vec<_> = recorded.iter().map(|turn| (turn.started_at, turn.finished_at)).collect();
    assert!(times.windows(2).all(|pair| pair[0].1 <= pair[1].0), "one at a time: {times:?}");
    assert_eq!(world.turn(&session, "value z").await.number, 18, "a refused turn takes no number");
}

#[tokio::test]
async fn a_turn_goes_on_without_whoever_asked_for_it() {
    let world = talking().await;
    let session = world.converse(Interactive::default()).await;
    drop(world.ask(&session, "hang").await.unwrap());
    drop(world.ask(&session, "value here").await.unwrap());
    world.runs(&session, 1).await;
    let told = world.engine.interrupt_turn(&world.caller, session.id, 1).await.unwrap();
    assert_eq!(told.status, TurnStatus::Running);
    let second = world.engine.turn(&world.caller, session.id, 2, Duration::from_secs(20)).await.unwrap();
    assert_eq!(second.value.unwrap().plain.as_deref(), Some("here"));
    let first = world.engine.turn(&world.caller, session.id, 1, Duration::ZERO).await.unwrap();
    assert_eq!((first.status, first.interrupted_by), (TurnStatus::Interrupted, Some(InterruptedBy::Caller)));
}

#[tokio::test]
async fn a_turn_that_is_interrupted_while_it_waits_never_runs() {
    let world = talking().await;
    let session = world.converse(Interactive::default()).await;
    let _hanging = world.ask(&session, "hang").await.unwrap();
    let waiting = world.ask(&session, "say never").await.unwrap();
    world.runs(&session, 1).await;
    for number in [2, 1] {
        world.engine.interrupt_turn(&world.caller, session.id, number).await.unwrap();
    }
    let turn = waiting.ended().await.unwrap();
    assert_eq!((turn.status, turn.started_at, turn.stdout_tail.as_str()), (TurnStatus::Interrupted, None, ""));
    assert_eq!(world.turn(&session, "value 3").await.status, TurnStatus::Completed);
}

#[tokio::test]
async fn a_report_that_cannot_be_read_fails_its_turn_and_the_session_goes_on() {
    let world = talking().await;
    let session = world.converse(Interactive::default()).await;
    let turn = world.turn(&session, "say x\nlie").await;
    assert_eq!((turn.status, turn.error.unwrap().name.as_str()), (TurnStatus::Failed, "MalformedReport"));
    assert_eq!(world.turn(&session, "value 1").await.status, TurnStatus::Completed);
}

#[tokio::test]
async fn a_program_that_ends_takes_its_turns_along() {
    let world = talking().await;
    let session = world.converse(Interactive::default()).await;
    let leaving = world.ask(&session, "say bye\nexit 3").await.unwrap();
    let behind = world.ask(&session, "value 1").await.ok();
    let turn = leaving.ended().await.unwrap();
    assert_eq!((turn.status, turn.stdout_tail.as_str()), (TurnStatus::Aborted, "bye\n"));
    if let Some(behind) = behind {
        assert_eq!(behind.ended().await.unwrap().status, TurnStatus::Aborted);
    }
    let (_, result, _) = world.end_of(&session).await;
    assert_eq!((result.outcome, result.exit_code), (Outcome::Failed, Some(3)));
}

#[tokio::test]
async fn what_is_asked_before_the_session_runs_waits_for_it_or_ends_with_it() {
    let world = world_on(Config { max_concurrency: 1, ..quick() }, Wrapped::talking).await;
    let first = world.converse(Interactive::default()).await;
    let second = world.engine.create(&world.caller, interactive(Interactive::default())).await.unwrap();
    let third = world.engine.create(&world.caller, interactive(Interactive::default())).await.unwrap();
    let (waiting, doomed) = (world.ask(&second, "value 2").await.unwrap(), world.ask(&third, "value 3").await.unwrap());
    assert_eq!(status(&world.recorded(&second).await), [TurnStatus::Queued]);
    world.engine.cancel(&world.caller, third.id).await.unwrap();
    assert_eq!(doomed.ended().await.unwrap().status, TurnStatus::Aborted);
    world.engine.cancel(&world.caller, first.id).await.unwrap();
    assert_eq!(waiting.ended().await.unwrap().status, TurnStatus::Completed);
}

#[tokio::test]
async fn turns_are_for_interactive_sessions_of_the_callers_org() {
    let world = talking().await;
    let session = world.converse(Interactive { turn_timeout_ms: Some(500), ..Interactive::default() }).await;
    let asked = CreateTurn { code: " \n".into(), timeout_ms: Some(501) };
    let refused = world.engine.take_turn(&world.caller, session.id, asked, Vec::new()).await.unwrap_err();
    let TurnError::Invalid(faults) = refused else { panic!("{refused:?}") };
    let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(fields, ["code", "timeoutMs"]);
    let stranger =
        model::access::Caller { org: world.engine.ensure_org("another").await.unwrap(), ..world.caller.clone() };
    let code = CreateTurn { code: "value 1".into(), timeout_ms: None };
    let refused = world.engine.take_turn(&stranger, session.id, code, Vec::new()).await.unwrap_err();
    assert!(matches!(refused, TurnError::Read(engine::ReadError::NotFound)), "{refused:?}");
    world.turn(&session, "value 1").await;
    for number in [1, 2] {
        assert!(world.engine.turn(&stranger, session.id, number, Duration::ZERO).await.is_err());
        assert!(world.engine.interrupt_turn(&stranger, session.id, number).await.is_err());
    }
}

#[tokio::test]
async fn after_a_restart_the_turns_that_were_under_way_are_told_as_ended_with_their_session() {
    let world = talking().await;
    let session = world.converse(Interactive::default()).await;
    world.turn(&session, "value kept").await;
    let (_running, _waiting) =
        (world.ask(&session, "hang").await.unwrap(), world.ask(&session, "say x").await.unwrap());
    world.runs(&session, 2).await;
    let restarted = world.restarted(Config::default(), world.backend.clone()).await;
    let filter = TurnFilter { session: session.id, cursor: None, limit: 100 };
    let turns = restarted.turns(&world.caller, filter).await.unwrap().items;
    assert_eq!(status(&turns), [TurnStatus::Completed, TurnStatus::Aborted, TurnStatus::Aborted]);
    assert_eq!((turns[1].started_at.is_some(), turns[2].started_at), (true, None));
    let told = restarted.session(&world.caller, session.id).await.unwrap();
    assert_eq!(told.fault.unwrap().code, FaultCode::ServerRestarted);
    let trail = restarted.audit(&world.caller, session.id, 0, 100).await.unwrap().items;
    let ended = trail.iter().filter(|event| event.kind == AuditType::TurnCompleted).count();
    assert_eq!(ended, 2, "those that ran");
}

#[tokio::test]
async fn a_server_that_drains_ends_conversations_that_idle_and_lets_a_turn_finish() {
    let world = talking().await;
    let (idle, busy) = (world.converse(Interactive::default()).await, world.converse(Interactive::default()).await);
    let running = world.ask(&busy, "hang\nvalue done").await.unwrap();
    world.runs(&busy, 1).await;
    let engine = world.engine.clone();
    let stopping = tokio::spawn(async move { engine.shutdown(Duration::from_secs(30)).await });
    let result = world.engine.result(&world.caller, idle.id, Duration::from_secs(20)).await.unwrap();
    assert_eq!(result.fault.unwrap().code, FaultCode::ServerDrained);
    assert!(matches!(world.ask(&busy, "value 2").await, Err(TurnError::Draining)));
    world.engine.interrupt_turn(&world.caller, busy.id, 1).await.unwrap();
    assert_eq!(running.ended().await.unwrap().value.unwrap().plain.as_deref(), Some("done"));
    stopping.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_session_keeps_so_much_of_its_turns_and_of_the_rest_what_became_of_them() {
    let world = talking().await;
    let session = world.converse(Interactive::default()).await;
    let code = format!("big {}", 2 * 1024 * 1024 - 200);
    let mut kept = 0;
    let trimmed = loop {
        let turn = world.turn(&session, &code).await;
        assert!(turn.value.is_some() && !turn.trimmed, "whoever waits is given all of it");
        let recorded = world.store.tenant(session.org_id).turn(session.id, turn.number).await.unwrap().unwrap();
        if recorded.trimmed {
            break recorded;
        }
        kept += 1;
    };
    assert_eq!(kept, 32, "64 MiB");
    assert_eq!((trimmed.status, trimmed.value, trimmed.code.as_str()), (TurnStatus::Completed, None, ""));
    assert_eq!(world.turn(&session, "value 1").await.status, TurnStatus::Completed);
}
