//! The driver's half of a conversation: turns in order and one at a time, each bound of them on the engine's clock.
//!
//! ```text
//!        asked             Turned
//! idle ---------> running --------> idle      what was recorded is published; a turn that ran is told in the audit log
//!   |                |
//!   | idleTtlMs      | timeout: interrupted; still there after a grace: the session ends
//!   v                v turnBudgetMs: the session ends
//! ```

use std::{future, sync::Arc, time::Duration};

use backend::SandboxId;
use model::audit::Draft;
use protocol::{HostFrame, Turn as TurnFrame, Turned};
use serde_json::json;
use sha2::{Digest, Sha256};
use store::{TurnRecord, UpdateError};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use wire::{AuditEvent, AuditType, InterruptedBy, KillReason, StreamFrame, Turn, TurnChange, TurnStatus, TurnValue};

use crate::{
    driver::{
        Driver,
        record::{Backoff, Unrecorded},
        report::Report,
        supervise::{Collected, Decided, frame},
    },
    output::Output,
    terminals::Board,
    turns::{Asked, Turns},
};

/// How long a turn that was interrupted at its timeout may take to stop before the session is ended: an interpreter that
/// can be interrupted is within milliseconds, and cleaning up may take some seconds.
pub(super) const INTERRUPT_GRACE: Duration = Duration::from_secs(5);
/// Frames that may wait to be written to the runner. A turn and its interrupts are all there is, and interrupts that find
/// no room are dropped: one that nobody reads is as good as several.
const ORDERS: usize = 8;
/// Bytes of its turns that a session may have in the store. Of what comes on top, only what became of it is kept.
const KEPT_BYTES: usize = 64 * 1024 * 1024;

/// An interactive session's turns.
pub(super) struct Conversation {
    turns: Arc<Turns>,
    asked: mpsc::Receiver<Asked>,
    /// The way to the runner, once there is one.
    orders: Option<mpsc::Sender<HostFrame>>,
    running: Option<Running>,
    /// Since when nothing runs; none before the start.
    idle_since: Option<Instant>,
    /// How long all turns together have run.
    spent: Duration,
    /// Bytes of turns that were recorded.
    kept: usize,
    /// When the session's end was decided.
    over: Option<Instant>,
}

struct Running {
    asked: Asked,
    began: Instant,
    /// When it is interrupted.
    deadline: Instant,
    /// When the session is ended, once it was interrupted for its time.
    last: Option<Instant>,
    output: Output,
    result: Option<Vec<u8>>,
}

/// What has to be done next.
pub(super) enum Step {
    Begin(Box<Asked>),
    Interrupt(InterruptedBy),
    Over(KillReason),
    Drained,
}

impl Conversation {
    /// For a session whose callers have this.
    pub(super) fn new(turns: &Arc<Turns>) -> Option<Self> {
        let asked = turns.take_asked()?;
        Some(Self {
            turns: Arc::clone(turns),
            asked,
            orders: None,
            running: None,
            idle_since: None,
            spent: Duration::ZERO,
            kept: 0,
            over: None,
        })
    }

    /// Connects it with the runner: frames for it come out here.
    pub(super) fn connect(&mut self) -> mpsc::Receiver<HostFrame> {
        let (orders, ordered) = mpsc::channel(ORDERS);
        self.orders = Some(orders);
        ordered
    }

    /// The session runs: turns may begin.
    pub(super) fn started(&mut self, now: Instant) {
        self.idle_since = Some(now);
    }

    /// The session's end was decided.
    pub(super) fn over(&mut self, when: Instant) {
        self.over = Some(when);
    }

    /// Takes output of the turn that runs.
    pub(super) fn wrote(&mut self, stream: protocol::Stream, data: &[u8]) {
        if let Some(running) = &mut self.running {
            running.output.keep(stream, data);
        }
    }

    /// Takes what was given to `enclave.result`.
    pub(super) fn gave(&mut self, json: &[u8]) {
        if let Some(running) = &mut self.running {
            running.result = Some(json.to_vec());
        }
    }

    /// What has to be done next, when it has to be. Cancel-safe.
    pub(super) async fn next(conversation: &mut Option<Self>, board: &Board, draining: &CancellationToken) -> Step {
        let Some(Self { turns, asked, running, idle_since: Some(idle_since), spent, .. }) = conversation else {
            return future::pending().await;
        };
        let Some(running) = running else {
            tokio::select! {
                // A turn that came in the last moment is in time.
                biased;
                Some(asked) = asked.recv() => return Step::Begin(Box::new(asked)),
                () = idle(*idle_since, ms(turns.bounds.idle_ttl_ms), board) => {
                    return Step::Over(KillReason::IdleTtlExceeded);
                }
                () = draining.cancelled() => return Step::Drained,
            }
        };
        let left = turns.bounds.turn_budget_ms.map(|budget| ms(budget).saturating_sub(*spent));
        tokio::select! {
            biased;
            () = at(left.map(|left| running.began + left)) => Step::Over(KillReason::TurnBudgetExceeded),
            () = at(running.last) => Step::Over(KillReason::TurnTimeoutExceeded),
            () = sleep_until(running.deadline), if running.last.is_none() => Step::Interrupt(InterruptedBy::Timeout),
            () = running.asked.open.interrupted() => Step::Interrupt(InterruptedBy::Caller),
        }
    }

    /// Tells the runner to interrupt what runs.
    fn interrupt(&mut self, by: InterruptedBy) {
        let Some(running) = &mut self.running else { return };
        running.asked.turn.interrupted_by.get_or_insert(by);
        if by == InterruptedBy::Timeout {
            running.last = Some(Instant::now() + INTERRUPT_GRACE);
        }
        if let Some(orders) = self.orders.as_ref().filter(|orders| orders.capacity() > 1) {
            // A runner that is gone is found out by its pipe.
            let _ = orders.try_send(HostFrame::Interrupt { turn: running.asked.turn.number });
        }
    }

    /// What is recorded of a turn: all of it while the session has room.
    fn recordable(&mut self, turn: &Turn) -> Turn {
        let size = size(turn);
        if self.kept + size <= KEPT_BYTES {
            self.kept += size;
            return turn.clone();
        }
        Turn {
            status: turn.status,
            interrupted_by: turn.interrupted_by,
            started_at: turn.started_at,
            finished_at: turn.finished_at,
            duration_ms: turn.duration_ms,
            trimmed: true,
            ..Turn::queued(turn.session_id, turn.number, String::new(), turn.timeout_ms, turn.created_at)
        }
    }
}

impl Driver {
    /// Does the next thing of the conversation; gives what it decided about the session.
    pub(super) async fn converse(
        &mut self,
        id: &SandboxId,
        until: Instant,
        step: Step,
        collected: &mut Collected,
    ) -> Option<Decided> {
        let Some(talk) = &mut collected.talk else { return None };
        match step {
            Step::Begin(asked) if asked.open.is_interrupted() => self.skip(id, until, *asked, talk).await.err(),
            Step::Begin(asked) => self.begin(id, until, *asked, talk).await.err(),
            Step::Interrupt(by) => {
                talk.interrupt(by);
                None
            }
            Step::Over(reason) => Some(Decided::Quota(reason)),
            Step::Drained => Some(Decided::Drained),
        }
    }

    /// Begins a turn: recorded first, told then, and only then given to the runner.
    async fn begin(
        &mut self,
        id: &SandboxId,
        until: Instant,
        mut asked: Asked,
        talk: &mut Conversation,
    ) -> Result<(), Decided> {
        let now = self.inner.clock.now();
        (asked.turn.status, asked.turn.started_at) = (TurnStatus::Running, Some(now));
        let code = hex::encode(Sha256::digest(asked.turn.code.as_bytes()));
        let data = json!({ "number": asked.turn.number, "codeSha256": code });
        let draft = Draft::platform(now, AuditType::TurnStarted, self.session.id, data).by(asked.actor.clone());
        let events = self.record_turn(Some((id, until)), asked.turn.clone(), vec![draft]).await?;
        let frame = self.publish_turn(events, &asked.turn);
        asked.open.begun(asked.turn.clone(), frame);
        if let Some(orders) = &talk.orders {
            let turn = TurnFrame { number: asked.turn.number, code: asked.turn.code.clone() };
            // There is room: the runner has answered the turn before. One that is gone is found out by its pipe.
            let _ = orders.try_send(HostFrame::Turn(turn));
        }
        let began = Instant::now();
        let deadline = began + ms(asked.turn.timeout_ms);
        talk.running =
            Some(Running { asked, began, deadline, last: None, output: Output::new(u64::MAX), result: None });
        Ok(())
    }

    /// Ends a turn that was interrupted before it had begun.
    async fn skip(
        &mut self,
        id: &SandboxId,
        until: Instant,
        asked: Asked,
        talk: &mut Conversation,
    ) -> Result<(), Decided> {
        let mut turn = asked.turn;
        (turn.status, turn.interrupted_by) = (TurnStatus::Interrupted, Some(InterruptedBy::Caller));
        turn.finished_at = Some(self.inner.clock.now());
        self.record_turn(Some((id, until)), talk.recordable(&turn), Vec::new()).await?;
        let frame = self.publish_turn(Vec::new(), &turn);
        talk.turns.ended(turn, frame);
        talk.idle_since = Some(Instant::now());
        Ok(())
    }

    /// Takes the end of the turn that runs.
    pub(super) async fn turned(
        &mut self,
        id: &SandboxId,
        until: Instant,
        turned: &Turned,
        collected: &mut Collected,
    ) -> Option<Decided> {
        let now = Instant::now();
        // The order check lets one report through for each turn that was sent.
        let running = collected.talk.as_mut()?.running.as_mut();
        let running = running.filter(|running| running.asked.turn.number == turned.number)?;
        let result = running.result.take().and_then(|json| self.parse_result(&json, collected));
        for (stream, chunk) in collected.output.finish() {
            self.live.hub.publish(&frame(stream, chunk));
        }
        let talk = collected.talk.as_mut()?;
        let running = talk.running.take()?;
        let took = now.saturating_duration_since(running.began);
        talk.spent += took;
        talk.idle_since = Some(now);
        let Report { status, value, error } = Report::read(&turned.report);
        let mut turn = running.asked.turn;
        (turn.status, turn.value, turn.error, turn.result) = (status, value, error, result);
        turn.duration_ms = Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        write_tails(&running.output, &mut turn);
        self.tell_end(Some((id, until)), turn, talk).await.err().map(Decided::from)
    }

    /// Ends what has not ended by the end of the session, and takes no more.
    pub(super) async fn abort_turns(&mut self) {
        let Some(mut talk) = self.talk.take() else { return };
        talk.turns.close().await;
        if let Some(running) = talk.running.take() {
            let mut turn = running.asked.turn;
            turn.status = TurnStatus::Aborted;
            let took = talk.over.unwrap_or_else(Instant::now).saturating_duration_since(running.began);
            turn.duration_ms = Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            write_tails(&running.output, &mut turn);
            let number = turn.number;
            if self.tell_end(None, turn, &mut talk).await.is_err() {
                talk.turns.forget(number);
            }
        }
        while let Ok(asked) = talk.asked.try_recv() {
            let mut turn = asked.turn;
            (turn.status, turn.finished_at) = (TurnStatus::Aborted, Some(self.inner.clock.now()));
            match self.record_turn(None, talk.recordable(&turn), Vec::new()).await {
                Ok(_) => {
                    let frame = self.publish_turn(Vec::new(), &turn);
                    talk.turns.ended(turn, frame);
                }
                Err(Unrecorded) => talk.turns.forget(turn.number),
            }
        }
        // One whose start could not be recorded is in neither place.
        talk.turns.forget_all();
    }

    /// Records and tells the end of a turn that ran.
    async fn tell_end(
        &self,
        limit: Option<(&SandboxId, Instant)>,
        mut turn: Turn,
        talk: &mut Conversation,
    ) -> Result<(), Unrecorded> {
        let now = self.inner.clock.now();
        turn.finished_at = Some(now);
        let data = json!({ "number": turn.number, "status": turn.status, "durationMs": turn.duration_ms });
        let draft = Draft::platform(now, AuditType::TurnCompleted, self.session.id, data);
        let events = self.record_turn(limit, talk.recordable(&turn), vec![draft]).await?;
        let frame = self.publish_turn(events, &turn);
        talk.turns.ended(turn, frame);
        Ok(())
    }

    /// Records a turn. A store that does not answer is waited for, and the limits of the session hold meanwhile.
    async fn record_turn(
        &self,
        limit: Option<(&SandboxId, Instant)>,
        turn: Turn,
        drafts: Vec<Draft>,
    ) -> Result<Vec<AuditEvent>, Unrecorded> {
        let record = TurnRecord { turn, drafts };
        let tenant = self.inner.store.tenant(self.session.org_id);
        let _guard = limit.map(|(id, until)| self.guard(id, until));
        let mut backoff = Backoff::until(&self.inner.deadline);
        loop {
            match tenant.record_turn(record.clone()).await {
                Ok(events) => return Ok(events),
                Err(UpdateError::Store(error)) if backoff.goes_on() => {
                    self.log_failure("record turn", &error);
                    backoff.wait().await;
                }
                Err(error) => {
                    self.log_failure("record turn", &error);
                    return Err(Unrecorded);
                }
            }
        }
    }

    /// Shows where a turn is, behind its audit events; gives the number of the frame.
    fn publish_turn(&self, events: Vec<AuditEvent>, turn: &Turn) -> u64 {
        for event in events {
            self.live.hub.publish(&StreamFrame::Audit(Box::new(event)));
        }
        let ts = turn.finished_at.or(turn.started_at).unwrap_or(turn.created_at);
        let Turn { number, status, duration_ms, .. } = *turn;
        self.live.hub.publish(&StreamFrame::Turn(TurnChange { number, status, ts, duration_ms }))
    }
}

/// A session whose turns cannot be recorded ends with the server's deadline, or is another's.
impl From<Unrecorded> for Decided {
    fn from(_: Unrecorded) -> Self {
        Self::Drained
    }
}

/// Resolves then; never when there is no such time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => future::pending().await,
    }
}

/// Resolves when nothing was done for so long: no turn since then, and nothing typed into a terminal.
async fn idle(since: Instant, ttl: Duration, board: &Board) {
    let mut over = since + ttl;
    loop {
        sleep_until(over).await;
        match board.active().map(|active| active + ttl) {
            Some(later) if later > over => over = later,
            Some(_) | None => return,
        }
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn write_tails(output: &Output, turn: &mut Turn) {
    let tails = output.tails();
    turn.stdout_truncated = tails.stdout.offset > 0;
    turn.stdout_tail_offset = tails.stdout.offset;
    turn.stdout_tail = tails.stdout.text;
    turn.stderr_truncated = tails.stderr.offset > 0;
    turn.stderr_tail_offset = tails.stderr.offset;
    turn.stderr_tail = tails.stderr.text;
}

/// Bytes of a turn that were not ours to choose.
fn size(turn: &Turn) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let value = turn.value.as_ref().map_or(0, |TurnValue { plain, html, json, png }| {
        text(plain) + text(html) + text(png) + json.as_ref().map_or(0, |json| json.as_str().len())
    });
    let error = turn.error.as_ref().map_or(0, |error| error.name.len() + error.value.len() + error.traceback.len());
    let result = turn.result.as_ref().map_or(0, |json| json.as_str().len());
    turn.code.len() + turn.stdout_tail.len() + turn.stderr_tail.len() + value + error + result
}
