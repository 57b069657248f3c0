//! Each bound of a conversation, exactly when it is due, on a clock that stands still until it is moved.

use engine::Shown;
use wire::{CreateTerminal, Interactive, InterruptedBy, KillReason, Outcome, Phase, Session, Timestamp, TurnStatus};

use super::{
    backend::Wrapped,
    support::{Still, still},
    turns::interactive,
};

impl Still {
    /// Moves time to the moment before and looks that nothing has happened, then to the moment itself, when the session
    /// has to end.
    async fn ends_after(&self, session: &Session, since: Timestamp, ms: u64, reason: KillReason) {
        self.pass(ms - 1).await;
        assert_eq!(self.world.now(session).await.phase, Phase::Running, "not a millisecond early");
        self.pass(1).await;
        let (session, result, _) = self.world.end_of(session).await;
        assert_eq!((result.outcome, result.kill_reason), (Outcome::Killed, Some(reason)));
        let lived = session.finished_at.unwrap().as_millis() - since.as_millis();
        assert_eq!(lived, i64::try_from(ms).unwrap(), "and not a millisecond late");
    }
}

async fn talking() -> Still {
    still(Wrapped::talking).await
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_ends_when_its_ttl_is_over_counted_from_its_last_turn() {
    let still = talking().await;
    let session = still.world.converse(Interactive { idle_ttl_ms: Some(5000), ..Interactive::default() }).await;
    still.pass(4999).await;
    let turn = still.world.turn(&session, "value 1").await;
    assert_eq!(turn.finished_at.unwrap().as_millis() - session.started_at.unwrap().as_millis(), 4999);
    still.ends_after(&session, turn.finished_at.unwrap(), 5000, KillReason::IdleTtlExceeded).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_does_not_idle_while_a_turn_runs() {
    let still = talking().await;
    let bounds = Interactive { idle_ttl_ms: Some(1000), ..Interactive::default() };
    let session = still.world.converse(bounds).await;
    let waiter = still.world.ask(&session, "hang").await.unwrap();
    still.world.runs(&session, 1).await;
    still.pass(10_000).await;
    still.world.engine.interrupt_turn(&still.world.caller, session.id, 1).await.unwrap();
    let turn = waiter.ended().await.unwrap();
    assert_eq!((turn.status, turn.duration_ms), (TurnStatus::Interrupted, Some(10_000)));
    still.ends_after(&session, turn.finished_at.unwrap(), 1000, KillReason::IdleTtlExceeded).await;
}

#[tokio::test(start_paused = true)]
async fn typing_into_a_terminal_puts_the_idle_ttl_off_and_looking_at_it_does_not() {
    let still = still(|simulator| Wrapped::new(simulator, "simulator")).await;
    let bounds = Interactive { idle_ttl_ms: Some(5000), ..Interactive::default() };
    let session = still.world.converse(bounds).await;
    let (engine, caller) = (&still.world.engine, &still.world.caller);
    let asked = CreateTerminal::default();
    let terminal = engine.open_terminal(caller, session.id, asked, Vec::new()).await.unwrap();
    let attached = engine.attach_terminal(caller, session.id, terminal.id, None).await.unwrap();
    still.pass(4000).await;
    attached.input(b"echo typed\n").await.unwrap();
    let typed = Timestamp::from_millis(session.started_at.unwrap().as_millis() + 4000);
    let (mut shown, mut seen) = (Vec::new(), 0);
    while !String::from_utf8_lossy(&shown).contains("typed\r\ntyped\r\n") {
        let Shown::Output(part) = attached.next(seen).await else { panic!("it ended: {shown:?}") };
        shown.extend_from_slice(&part);
        seen = attached.offset + shown.len() as u64;
    }
    still.ends_after(&session, typed, 5000, KillReason::IdleTtlExceeded).await;
    assert!(matches!(attached.next(seen).await, Shown::SessionEnded));
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_with_its_lifetime_whatever_it_does() {
    let still = talking().await;
    let bounds = Interactive { max_lifetime_ms: Some(7000), idle_ttl_ms: Some(6000), ..Interactive::default() };
    let session = still.world.converse(bounds).await;
    let waiter = still.world.ask(&session, "hang").await.unwrap();
    still.world.runs(&session, 1).await;
    still.ends_after(&session, session.started_at.unwrap(), 7000, KillReason::MaxLifetimeExceeded).await;
    let turn = waiter.ended().await.unwrap();
    assert_eq!((turn.status, turn.duration_ms), (TurnStatus::Aborted, Some(7000)));
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_was_asked_for_bounds_a_conversation_too() {
    let still = talking().await;
    let mut asked = interactive(Interactive::default());
    asked.request.limits.wall_clock_ms = Some(2000);
    let session = still.world.engine.create(&still.world.caller, asked).await.unwrap();
    still.world.running(&session).await;
    let session = still.world.now(&session).await;
    still.ends_after(&session, session.started_at.unwrap(), 2000, KillReason::WallClockExceeded).await;
}

#[tokio::test(start_paused = true)]
async fn the_default_wall_clock_of_programs_does_not_end_a_conversation() {
    let still = talking().await;
    let session = still.world.converse(Interactive::default()).await;
    still.pass(61_000).await;
    assert_eq!(still.world.turn(&session, "value 1").await.status, TurnStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_interrupted_when_its_time_is_over_and_the_session_lives_on() {
    let still = talking().await;
    let session = still.world.converse(Interactive { turn_timeout_ms: Some(3000), ..Interactive::default() }).await;
    let waiter = still.world.ask(&session, "hang").await.unwrap();
    still.world.runs(&session, 1).await;
    still.pass(2999).await;
    let now = still.world.engine.turn(&still.world.caller, session.id, 1, std::time::Duration::ZERO).await.unwrap();
    assert_eq!(now.status, TurnStatus::Running, "not a millisecond early");
    still.pass(1).await;
    let turn = waiter.ended().await.unwrap();
    assert_eq!((turn.status, turn.interrupted_by), (TurnStatus::Interrupted, Some(InterruptedBy::Timeout)));
    assert_eq!(turn.duration_ms, Some(3000), "and not a millisecond late");
    assert_eq!(still.world.turn(&session, "value 1").await.status, TurnStatus::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_does_not_stop_ends_the_session_after_a_grace() {
    let still = talking().await;
    let session = still.world.converse(Interactive { turn_timeout_ms: Some(3000), ..Interactive::default() }).await;
    let (deaf, behind) =
        (still.world.ask(&session, "say x\ndeaf").await.unwrap(), still.world.ask(&session, "value 1").await.unwrap());
    still.world.runs(&session, 1).await;
    let since = still.world.now(&session).await.started_at.unwrap();
    // What callers ask for does not count as its last chance.
    still.world.engine.interrupt_turn(&still.world.caller, session.id, 1).await.unwrap();
    still.pass(3000).await;
    still
        .ends_after(&session, Timestamp::from_millis(since.as_millis() + 3000), 5000, KillReason::TurnTimeoutExceeded)
        .await;
    let turn = deaf.ended().await.unwrap();
    assert_eq!((turn.status, turn.interrupted_by), (TurnStatus::Aborted, Some(InterruptedBy::Caller)));
    assert_eq!(behind.ended().await.unwrap().status, TurnStatus::Aborted);
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_of_all_turns_together() {
    let still = talking().await;
    let session = still.world.converse(Interactive { turn_budget_ms: Some(10_000), ..Interactive::default() }).await;
    let first = still.world.ask(&session, "hang").await.unwrap();
    still.world.runs(&session, 1).await;
    still.pass(6000).await;
    still.world.engine.interrupt_turn(&still.world.caller, session.id, 1).await.unwrap();
    first.ended().await.unwrap();
    // Time between turns costs nothing.
    still.pass(100_000).await;
    let second = still.world.ask(&session, "hang").await.unwrap();
    still.world.runs(&session, 2).await;
    let since = still.world.engine.turn(&still.world.caller, session.id, 2, std::time::Duration::ZERO).await.unwrap();
    still.ends_after(&session, since.started_at.unwrap(), 4000, KillReason::TurnBudgetExceeded).await;
    assert_eq!(second.ended().await.unwrap().status, TurnStatus::Aborted);
}
