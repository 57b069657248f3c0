//! One turn out of its session's stream.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use tokio::sync::watch;
use wire::{FrameKind, StreamFrame, TurnChange, TurnStatus};

use super::TurnProgress;
use crate::hub::{Frame, FrameStream, Hub};

struct Reader {
    hub: Arc<Hub>,
    progress: watch::Receiver<TurnProgress>,
    at: At,
    /// Number of the last frame that was read.
    last: u64,
}

enum At {
    New,
    /// Before its start.
    Waiting,
    /// Between its start and its end.
    Running(FrameStream),
    /// Behind its last frame.
    Ending,
    Done,
}

/// The turn's frames, and the turn itself as the last one.
pub(super) fn frames(hub: Arc<Hub>, progress: watch::Receiver<TurnProgress>) -> FrameStream {
    let reader = Reader { hub, progress, at: At::New, last: 0 };
    Box::pin(stream::unfold(reader, |mut reader| async move {
        let frame = reader.next().await?;
        Some((frame, reader))
    }))
}

impl Reader {
    async fn next(&mut self) -> Option<Frame> {
        loop {
            match &mut self.at {
                At::New => {
                    self.at = At::Waiting;
                    let turn = Arc::clone(&self.progress.borrow().turn);
                    if turn.status == TurnStatus::Queued {
                        let (number, status, ts) = (turn.number, turn.status, turn.created_at);
                        self.last = self.hub.last();
                        let change = TurnChange { number, status, ts, duration_ms: None };
                        return Some(Frame::new(self.last, &StreamFrame::Turn(change)));
                    }
                }
                At::Waiting => {
                    let decided = |progress: &TurnProgress| progress.began.is_some() || progress.ended.is_some();
                    let began = self.progress.wait_for(decided).await.ok()?.began;
                    self.at = match began {
                        Some(began) => At::Running(self.hub.subscribe(began.saturating_sub(1))),
                        None => At::Ending,
                    };
                }
                At::Running(frames) => {
                    let ended = self.progress.borrow_and_update().ended;
                    if ended.is_some_and(|ended| self.last >= ended) {
                        self.at = At::Ending;
                        continue;
                    }
                    tokio::select! {
                        biased;
                        frame = frames.next() => match frame {
                            Some(frame) => {
                                self.last = frame.seq;
                                if is_of_turn(frame.kind) {
                                    return Some(frame);
                                }
                            }
                            None => self.at = At::Ending,
                        },
                        changed = self.progress.changed(), if ended.is_none() => changed.ok()?,
                    }
                }
                At::Ending => {
                    self.at = At::Done;
                    let ended = self.progress.wait_for(|progress| progress.ended.is_some()).await.ok()?;
                    return Some(Frame::of_turn(ended.ended.unwrap_or(self.last), &ended.turn));
                }
                At::Done => return None,
            }
        }
    }
}

fn is_of_turn(kind: FrameKind) -> bool {
    match kind {
        FrameKind::Turn | FrameKind::Stdout | FrameKind::Stderr | FrameKind::Gap => true,
        FrameKind::Phase
        | FrameKind::Audit
        | FrameKind::Result
        | FrameKind::Member
        | FrameKind::Progress
        | FrameKind::End => false,
    }
}
