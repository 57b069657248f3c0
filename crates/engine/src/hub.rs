//! The event hub: each session's frames, numbered, kept within bounds for late and returning readers.
//!
//! The frames of all sessions share one budget. When it is used up, finished sessions make room first; then the session
//! that is writing drops its oldest output, down to a floor that nobody else can take from it. No session keeps more than
//! its share. What was dropped is remembered as a gap that readers are told of. What goes with each turn of a conversation
//! counts as output, since there may be any number of them; other frames are few and small, and are never dropped while the
//! session is kept.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{Stream, stream};
use tokio::sync::watch;
use wire::{AuditType, FrameKind, Gap, StreamFrame, Turn};

/// Part of the whole budget that one session's output may take.
const SHARE: usize = 4;
/// What the output of a session that runs may take whatever the others hold: more than the largest frame, so that readers
/// who follow it miss nothing.
const FLOOR: usize = 256 * 1024;
/// What a frame costs beside its text.
const FRAME_COST: usize = 64;

/// The largest frame number: the largest whole number that every JSON reader holds exactly. No session has so many
/// frames; the end of a session that is put together from the store has it, so that nothing is behind it.
pub const MAX_SEQ: u64 = (1 << 53) - 1;

/// A numbered frame, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its number: the `id:` line.
    pub seq: u64,
    /// Its kind: the `event:` line.
    pub kind: FrameKind,
    /// Its content: the `data:` line, JSON without line breaks.
    pub data: Arc<str>,
}

impl Frame {
    pub(crate) fn new(seq: u64, frame: &StreamFrame) -> Self {
        Self::of(seq, frame.kind(), frame)
    }

    pub(crate) fn of(seq: u64, kind: FrameKind, frame: &impl serde::Serialize) -> Self {
        let data = serde_json::to_string(frame).expect("frames have string keys only").into();
        Self { seq, kind, data }
    }

    /// The last frame of a turn's own stream.
    pub(crate) fn of_turn(seq: u64, turn: &Turn) -> Self {
        let data = serde_json::to_string(turn).expect("turns have string keys only").into();
        Self { seq, kind: FrameKind::End, data }
    }

    /// What it counts against the budget. A result is kept once more, for those who ask for it alone.
    fn cost(&self) -> usize {
        let copies = if self.kind == FrameKind::Result { 2 } else { 1 };
        self.data.len() * copies + FRAME_COST
    }
}

/// Frames as they come. Ends behind the `end` frame.
pub type FrameStream = Pin<Box<dyn Stream<Item = Frame> + Send>>;

/// Bytes that all hubs together hold.
pub(crate) struct ReplayBudget {
    held: AtomicUsize,
    limit: usize,
    /// Lets go of a session that has finished; false when there is none.
    forget: Box<dyn Fn() -> bool + Send + Sync>,
}

impl ReplayBudget {
    pub(crate) fn new(limit: usize, forget: impl Fn() -> bool + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), limit, forget: Box::new(forget) })
    }

    pub(crate) fn is_over(&self) -> bool {
        self.held.load(Ordering::Relaxed) > self.limit
    }

    /// Counts `cost` in. Takes locks of the registry and of other hubs: to be called without one.
    fn take(&self, cost: usize) {
        self.held.fetch_add(cost, Ordering::Relaxed);
        while self.is_over() && (self.forget)() {}
    }

    fn give_back(&self, cost: usize) {
        self.held.fetch_sub(cost, Ordering::Relaxed);
    }

    /// Whether a session whose output costs so much has to drop some of it.
    fn is_too_much(&self, output_cost: usize) -> bool {
        let share = self.limit / SHARE;
        output_cost > share || (self.is_over() && output_cost > FLOOR.min(share))
    }
}

impl fmt::Debug for ReplayBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBudget").field("held", &self.held).field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// One session's frames.
pub(crate) struct Hub {
    log: Mutex<Log>,
    budget: Arc<ReplayBudget>,
    /// Number of the last frame; readers wait for it to move.
    last: watch::Sender<u64>,
}

#[derive(Default)]
struct Log {
    entries: VecDeque<Entry>,
    /// Behind the last frame.
    end: Place,
    /// Cost of the output frames that are held.
    output_cost: usize,
    ended: bool,
}

/// How far somebody is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    /// Number of the last frame.
    seq: u64,
    /// Bytes of output up to there.
    bytes: u64,
}

/// A frame, or output frames that were dropped, and the place behind it.
struct Entry {
    end: Place,
    frame: Option<Frame>,
    is_flow: bool,
}

impl Hub {
    pub(crate) fn new(budget: Arc<ReplayBudget>) -> Self {
        Self { log: Mutex::default(), budget, last: watch::Sender::new(0) }
    }

    /// Number of the last frame.
    pub(crate) fn last(&self) -> u64 {
        *self.last.borrow()
    }

    /// Adds a frame, and gives its number. A session has one writer.
    pub(crate) fn publish(&self, frame: &StreamFrame) -> u64 {
        let before = self.log().end;
        let end = Place { seq: before.seq + 1, bytes: before.bytes + output_bytes(frame) };
        let (ended, is_flow) = (matches!(frame, StreamFrame::End(_)), is_flow(frame));
        let frame = Frame::new(end.seq, frame);
        self.budget.take(frame.cost());
        let mut log = self.log();
        log.end = end;
        log.ended |= ended;
        if is_flow {
            log.output_cost += frame.cost();
        }
        log.entries.push_back(Entry { end, frame: Some(frame), is_flow });
        while self.budget.is_too_much(log.output_cost) && self.drop_oldest_output(&mut log) {}
        drop(log);
        self.last.send_replace(end.seq);
        end.seq
    }

    /// Ends every stream without an `end` frame: there is more to say, but not here.
    pub(crate) fn close(&self) {
        self.log().ended = true;
        self.last.send_modify(|_| {});
    }

    /// Resolves when nothing more will come.
    pub(crate) async fn ended(&self) {
        let mut last = self.last.subscribe();
        while !self.log().ended {
            if last.changed().await.is_err() {
                return;
            }
        }
    }

    /// Drops all output that is held; readers that come later are told of the gap.
    pub(crate) fn drop_output(&self) {
        let mut log = self.log();
        while self.drop_oldest_output(&mut log) {}
    }

    /// False when there is none.
    fn drop_oldest_output(&self, log: &mut Log) -> bool {
        let can_go = |entry: &Entry| entry.is_flow && entry.frame.is_some();
        let Some(at) = log.entries.iter().position(can_go) else { return false };
        let Some(frame) = log.entries[at].frame.take() else { return false };
        log.output_cost -= frame.cost();
        self.budget.give_back(frame.cost());
        let end = log.entries[at].end;
        if let Some(before) = at.checked_sub(1).filter(|before| log.entries[*before].frame.is_none()) {
            log.entries[before].end = end;
            log.entries.remove(at);
        }
        true
    }

    /// The frame behind `place`, or whether there will be one.
    fn next(&self, place: Place) -> Next {
        let log = self.log();
        match log.entries.get(log.behind(place.seq)) {
            Some(Entry { end, frame: Some(frame), .. }) => Next::Frame(frame.clone(), *end),
            Some(Entry { end, frame: None, .. }) => {
                let gap = Gap { dropped_bytes: end.bytes.saturating_sub(place.bytes) };
                Next::Frame(Frame::new(end.seq, &StreamFrame::Gap(gap)), *end)
            }
            None if log.ended => Next::End,
            None => Next::Wait,
        }
    }

    /// Every frame behind `after`, then those to come.
    pub(crate) fn subscribe(self: &Arc<Self>, after: u64) -> FrameStream {
        let place = self.log().place(after);
        let start = (Arc::clone(self), self.last.subscribe(), place);
        Box::pin(stream::unfold(start, |(hub, mut last, place)| async move {
            loop {
                last.mark_unchanged();
                match hub.next(place) {
                    Next::Frame(frame, place) => return Some((frame, (hub, last, place))),
                    Next::End => return None,
                    Next::Wait => last.changed().await.ok()?,
                }
            }
        }))
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Index of the first entry that has something behind frame `seq`.
    fn behind(&self, seq: u64) -> usize {
        self.entries.partition_point(|entry| entry.end.seq <= seq)
    }

    /// The place of a reader who has read up to frame `seq`. How much of dropped frames that was, nobody knows any more:
    /// it counts as nothing.
    fn place(&self, seq: u64) -> Place {
        let before = self.behind(seq).checked_sub(1);
        Place { seq, bytes: before.map_or(0, |before| self.entries[before].end.bytes) }
    }
}

enum Next {
    /// A frame, and the place behind it.
    Frame(Frame, Place),
    End,
    Wait,
}

/// Whether a session may have any number of them: they make room for one another. Output, and what goes with each turn.
fn is_flow(frame: &StreamFrame) -> bool {
    match frame {
        StreamFrame::Stdout(_) | StreamFrame::Stderr(_) | StreamFrame::Turn(_) => true,
        StreamFrame::Audit(event) => matches!(event.kind, AuditType::TurnStarted | AuditType::TurnCompleted),
        StreamFrame::Result(_) | StreamFrame::Phase(_) | StreamFrame::Gap(_) | StreamFrame::End(_) => false,
    }
}

/// Bytes of the workload in a frame.
fn output_bytes(frame: &StreamFrame) -> u64 {
    let bytes = match frame {
        StreamFrame::Stdout(chunk) | StreamFrame::Stderr(chunk) => match &chunk.base64 {
            Some(encoded) => encoded.trim_end_matches('=').len() * 3 / 4,
            None => chunk.text.len(),
        },
        StreamFrame::Result(_)
        | StreamFrame::Audit(_)
        | StreamFrame::Phase(_)
        | StreamFrame::Turn(_)
        | StreamFrame::Gap(_)
        | StreamFrame::End(_) => 0,
    };
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

impl Drop for Hub {
    fn drop(&mut self) {
        let log = self.log.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.budget.give_back(log.entries.iter().filter_map(|entry| entry.frame.as_ref()).map(Frame::cost).sum());
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("last", &self.log().end.seq).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};
    use wire::{Chunk, End, Outcome};

    use super::*;

    fn text(text: &str) -> StreamFrame {
        StreamFrame::Stdout(Chunk { text: text.into(), base64: None, offset: 0 })
    }

    fn end() -> StreamFrame {
        StreamFrame::End(End { outcome: Outcome::Succeeded })
    }

    fn budget(limit: usize) -> Arc<ReplayBudget> {
        ReplayBudget::new(limit, || false)
    }

    fn hub(limit: usize) -> Arc<Hub> {
        Arc::new(Hub::new(budget(limit)))
    }

    /// What is there of the hub's frames behind `after`.
    fn read(hub: &Arc<Hub>, after: u64) -> Vec<Frame> {
        let mut frames = hub.subscribe(after);
        std::iter::from_fn(|| frames.next().now_or_never().flatten()).collect()
    }

    fn gap(frame: &Frame) -> u64 {
        assert_eq!(frame.kind, FrameKind::Gap);
        serde_json::from_str::<Gap>(&frame.data).unwrap().dropped_bytes
    }

    #[tokio::test]
    async fn a_returning_reader_gets_every_frame_from_where_it_left() {
        let hub = hub(1 << 20);
        for n in 0..10 {
            hub.publish(&text(&n.to_string()));
        }
        hub.publish(&end());
        let all: Vec<_> = hub.subscribe(0).collect().await;
        assert_eq!(all.iter().map(|frame| frame.seq).collect::<Vec<_>>(), (1..=11).collect::<Vec<_>>());
        for cut in 0..=11 {
            let rest: Vec<_> = hub.subscribe(cut).collect().await;
            assert_eq!(rest, all[usize::try_from(cut).unwrap()..]);
        }
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken_by_each_frame_and_by_the_end() {
        let hub = hub(1 << 20);
        let reader = tokio::spawn(hub.subscribe(0).collect::<Vec<_>>());
        for n in 0..100 {
            hub.publish(&text(&n.to_string()));
            tokio::task::yield_now().await;
        }
        hub.publish(&end());
        assert_eq!(reader.await.unwrap().len(), 101);
    }

    #[tokio::test]
    async fn what_had_to_be_dropped_is_said_with_its_size() {
        let hub = hub(4 * SHARE * (FRAME_COST + 100));
        for _ in 0..20 {
            hub.publish(&text(&"x".repeat(50)));
        }
        hub.publish(&end());
        let frames: Vec<_> = hub.subscribe(0).collect().await;
        let kept = frames.iter().filter(|frame| frame.kind == FrameKind::Stdout).count();
        assert_eq!(gap(&frames[0]), 50 * u64::try_from(20 - kept).unwrap());
        assert!(kept > 0);
        assert_eq!(frames[0].seq, u64::try_from(20 - kept).unwrap());
        assert_eq!(frames.last().unwrap().kind, FrameKind::End);
    }

    #[test]
    fn a_gap_is_what_this_reader_missed() {
        let hub = hub(4 * SHARE * (FRAME_COST + 100));
        let mut early = hub.subscribe(0);
        for _ in 0..3 {
            hub.publish(&text(&"x".repeat(50)));
            early.next().now_or_never().unwrap();
        }
        for _ in 3..20 {
            hub.publish(&text(&"x".repeat(50)));
        }
        let all = read(&hub, 0);
        let dropped = gap(&all[0]);
        assert_eq!(gap(&early.next().now_or_never().unwrap().unwrap()), dropped - 150);
        // Who comes back from the middle of it is told of all of it; behind it there is none.
        assert_eq!(read(&hub, 3), all);
        assert_eq!(read(&hub, all[0].seq), all[1..]);
    }

    #[test]
    fn bytes_that_are_not_text_are_counted_as_they_were() {
        for (encoded, bytes) in [("/w==", 1), ("//8=", 2), ("////", 3), ("/////w==", 4)] {
            let chunk = Chunk { text: "\u{fffd}".into(), base64: Some(encoded.into()), offset: 0 };
            assert_eq!(output_bytes(&StreamFrame::Stderr(chunk)), bytes, "{encoded}");
        }
    }

    #[test]
    fn no_session_takes_the_floor_of_another() {
        let budget = budget(SHARE << 20);
        let full: Vec<_> = (0..=SHARE).map(|_| Arc::new(Hub::new(Arc::clone(&budget)))).collect();
        for hub in &full {
            for _ in 0..100 {
                hub.publish(&text(&"x".repeat(10_000)));
            }
        }
        assert!(budget.is_over());
        let late = Arc::new(Hub::new(Arc::clone(&budget)));
        let mut reader = late.subscribe(0);
        for _ in 0..100 {
            late.publish(&text(&"y".repeat(10_000)));
            assert_eq!(reader.next().now_or_never().unwrap().unwrap().kind, FrameKind::Stdout);
        }
        let kept = read(&late, 0).len() - 1;
        assert!((FLOOR / 12_000..=FLOOR / 10_000).contains(&kept), "{kept}");
    }

    #[tokio::test]
    async fn a_dropped_hub_gives_its_budget_back() {
        let budget = budget(100);
        let hub = Arc::new(Hub::new(Arc::clone(&budget)));
        hub.publish(&end());
        hub.publish(&text("x"));
        drop(hub);
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    }
}
