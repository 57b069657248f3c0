//! The event hub: each session's frames, numbered, kept within bounds for late and returning readers.
//!
//! Frames of output share one budget over all sessions. When it is used up the oldest output of the session that is
//! writing goes first, then that of finished sessions; what was dropped is remembered as a gap that readers are told of.
//! Frames that are not output are few and small, and are never dropped while the session is kept.

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
use wire::{FrameKind, Gap, StreamFrame};

/// Part of the whole budget that one session's output may take.
const SHARE: usize = 4;
/// What a frame costs beside its text.
const FRAME_COST: usize = 64;

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

/// Frames as they come. Ends behind the `end` frame.
pub type FrameStream = Pin<Box<dyn Stream<Item = Frame> + Send>>;

/// Bytes that all hubs together hold.
#[derive(Debug)]
pub(crate) struct ReplayBudget {
    held: AtomicUsize,
    limit: usize,
}

impl ReplayBudget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), limit })
    }

    pub(crate) fn is_over(&self) -> bool {
        self.held.load(Ordering::Relaxed) > self.limit
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
    last: u64,
    /// Cost of the output frames that are held.
    output_cost: usize,
    ended: bool,
}

enum Entry {
    Frame {
        frame: Frame,
        output_bytes: usize,
    },
    /// Output frames `first..=last` were dropped.
    Dropped {
        last: u64,
        bytes: u64,
    },
}

impl Entry {
    fn last_seq(&self) -> u64 {
        match self {
            Self::Frame { frame, .. } => frame.seq,
            Self::Dropped { last, .. } => *last,
        }
    }
}

impl Hub {
    pub(crate) fn new(budget: Arc<ReplayBudget>) -> Self {
        Self { log: Mutex::default(), budget, last: watch::Sender::new(0) }
    }

    /// Adds a frame.
    pub(crate) fn publish(&self, frame: &StreamFrame) {
        let data: Arc<str> = serde_json::to_string(frame).expect("frames have string keys only").into();
        let output_bytes = match frame {
            StreamFrame::Stdout(chunk) | StreamFrame::Stderr(chunk) => chunk_bytes(chunk),
            StreamFrame::Result(_)
            | StreamFrame::Audit(_)
            | StreamFrame::Phase(_)
            | StreamFrame::Gap(_)
            | StreamFrame::End(_) => 0,
        };
        let mut log = self.log();
        log.last += 1;
        log.ended |= matches!(frame, StreamFrame::End(_));
        let frame = Frame { seq: log.last, kind: frame.kind(), data };
        self.budget.held.fetch_add(cost(&frame), Ordering::Relaxed);
        if output_bytes > 0 {
            log.output_cost += cost(&frame);
        }
        log.entries.push_back(Entry::Frame { frame, output_bytes });
        while log.output_cost > self.budget.limit / SHARE || (self.budget.is_over() && log.output_cost > 0) {
            self.drop_oldest_output(&mut log);
        }
        let last = log.last;
        drop(log);
        self.last.send_replace(last);
    }

    /// Ends every stream without an `end` frame: there is more to say, but not here.
    pub(crate) fn close(&self) {
        self.log().ended = true;
        self.last.send_modify(|_| {});
    }

    /// Drops all output that is held; readers that come later are told of the gap.
    pub(crate) fn drop_output(&self) {
        let mut log = self.log();
        while log.output_cost > 0 {
            self.drop_oldest_output(&mut log);
        }
    }

    fn drop_oldest_output(&self, log: &mut Log) {
        let oldest = log
            .entries
            .iter()
            .position(|entry| matches!(entry, Entry::Frame { output_bytes, .. } if *output_bytes > 0));
        let Some(at) = oldest else {
            log.output_cost = 0;
            return;
        };
        let Entry::Frame { frame, output_bytes } = &log.entries[at] else { return };
        let (seq, freed) = (frame.seq, cost(frame));
        let bytes = u64::try_from(*output_bytes).unwrap_or(u64::MAX);
        log.output_cost -= freed;
        self.budget.held.fetch_sub(freed, Ordering::Relaxed);
        let joins = at.checked_sub(1).and_then(|before| log.entries.get_mut(before));
        if let Some(Entry::Dropped { last, bytes: dropped }) = joins {
            *last = seq;
            *dropped += bytes;
            log.entries.remove(at);
        } else {
            log.entries[at] = Entry::Dropped { last: seq, bytes };
        }
    }

    /// The frame behind `after`, or whether there will be one.
    fn next(&self, after: u64) -> Next {
        let log = self.log();
        let at = log.entries.partition_point(|entry| entry.last_seq() <= after);
        match log.entries.get(at) {
            Some(Entry::Frame { frame, .. }) => Next::Frame(frame.clone()),
            Some(Entry::Dropped { last, bytes }) => {
                let gap = StreamFrame::Gap(Gap { dropped_bytes: *bytes });
                let data = serde_json::to_string(&gap).expect("frames have string keys only").into();
                Next::Frame(Frame { seq: *last, kind: FrameKind::Gap, data })
            }
            None if log.ended => Next::End,
            None => Next::Wait,
        }
    }

    /// Every frame behind `after`, then those to come.
    pub(crate) fn subscribe(self: &Arc<Self>, after: u64) -> FrameStream {
        let start = (Arc::clone(self), self.last.subscribe(), after);
        Box::pin(stream::unfold(start, |(hub, mut last, after)| async move {
            loop {
                last.mark_unchanged();
                match hub.next(after) {
                    Next::Frame(frame) => {
                        let seq = frame.seq;
                        return Some((frame, (hub, last, seq)));
                    }
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

enum Next {
    Frame(Frame),
    End,
    Wait,
}

fn cost(frame: &Frame) -> usize {
    frame.data.len() + FRAME_COST
}

fn chunk_bytes(chunk: &wire::Chunk) -> usize {
    match &chunk.base64 {
        Some(encoded) => encoded.len() / 4 * 3,
        None => chunk.text.len(),
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let log = self.log.get_mut().unwrap_or_else(PoisonError::into_inner);
        let held: usize = log
            .entries
            .iter()
            .map(|entry| match entry {
                Entry::Frame { frame, .. } => cost(frame),
                Entry::Dropped { .. } => 0,
            })
            .sum();
        self.budget.held.fetch_sub(held, Ordering::Relaxed);
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("last", &self.log().last).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use wire::{Chunk, End, Outcome};

    use super::*;

    fn text(text: &str) -> StreamFrame {
        StreamFrame::Stdout(Chunk { text: text.into(), base64: None, offset: 0 })
    }

    fn end() -> StreamFrame {
        StreamFrame::End(End { outcome: Outcome::Succeeded })
    }

    fn hub(limit: usize) -> Arc<Hub> {
        Arc::new(Hub::new(ReplayBudget::new(limit)))
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
        assert_eq!(frames[0].kind, FrameKind::Gap);
        let gap: Gap = serde_json::from_str(&frames[0].data).unwrap();
        let kept = frames.iter().filter(|frame| frame.kind == FrameKind::Stdout).count();
        assert_eq!(gap.dropped_bytes, 50 * u64::try_from(20 - kept).unwrap());
        assert!(kept > 0);
        assert_eq!(frames[0].seq, u64::try_from(20 - kept).unwrap());
        assert_eq!(frames.last().unwrap().kind, FrameKind::End);
    }

    #[tokio::test]
    async fn a_dropped_hub_gives_its_budget_back() {
        let budget = ReplayBudget::new(100);
        let hub = Arc::new(Hub::new(Arc::clone(&budget)));
        hub.publish(&end());
        hub.publish(&text("x"));
        drop(hub);
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    }
}
