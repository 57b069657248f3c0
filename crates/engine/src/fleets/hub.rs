//! What everybody but its task sees of a fleet, and the frames of its stream.
//!
//! A member's frame is what the member is, not what changed of it. So only the last one of each is kept, under the number
//! of its change: a reader who comes late or is slow gets every member that has changed since, once, and memory is bounded
//! by the members, not by what happens to them. Numbers begin at the time of the start, so that they only grow over starts
//! of the server: a reader who comes back after one gets whatever may have changed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::stream;
use tokio::sync::watch;
use wire::{
    Fleet, FleetCounts, FleetEnd, FleetEndReason, FleetFrame, FleetId, FleetMember, FleetPhase, FleetProgress,
    FleetUsage, OrgId, Timestamp,
};

use crate::hub::{Frame, FrameStream, MAX_SEQ};

/// Numbers of one millisecond of a server's life, as a power of two: more frames than that there never are on average. The
/// largest number is reached in the year 2109.
const NUMBERS_PER_MS: u32 = 11;

/// A fleet under way.
#[derive(Debug)]
pub(crate) struct FleetHub {
    pub(super) id: FleetId,
    pub(super) org: OrgId,
    log: Mutex<Log>,
    /// Moves with every frame, and with the end.
    last: watch::Sender<u64>,
    /// Who asked for its end.
    cancelled_by: watch::Sender<Option<String>>,
}

#[derive(Debug)]
struct Log {
    fleet: Fleet,
    seq: u64,
    /// The last frame of each member that has one, by its number.
    changed: BTreeMap<u64, FleetMember>,
    /// Numbers of members in `changed`.
    numbers: BTreeMap<u32, u64>,
    progress: Option<(u64, FleetProgress)>,
    ended: Option<FleetPhase>,
    /// Nothing more comes from this process.
    over: bool,
}

impl FleetHub {
    /// For a fleet that gets its task now.
    pub(super) fn new(fleet: Fleet, now: Timestamp) -> Self {
        let seq = u64::try_from(now.as_millis()).unwrap_or(0) << NUMBERS_PER_MS;
        let (id, org) = (fleet.id, fleet.org_id);
        let log = Log {
            fleet,
            seq,
            changed: BTreeMap::new(),
            numbers: BTreeMap::new(),
            progress: None,
            ended: None,
            over: false,
        };
        let hub =
            Self { id, org, log: Mutex::new(log), last: watch::Sender::new(0), cancelled_by: watch::Sender::new(None) };
        hub.progress();
        hub
    }

    /// The fleet as it is now.
    pub(super) fn fleet(&self) -> Fleet {
        self.log().fleet.clone()
    }

    /// Shows what the fleet is now.
    pub(super) fn update(&self, change: impl FnOnce(&mut Fleet)) {
        change(&mut self.log().fleet);
    }

    /// Shows what a member is now. The fleet has one writer.
    pub(super) fn member(&self, member: FleetMember, counts: FleetCounts, used: FleetUsage) {
        let mut log = self.log();
        (log.fleet.counts, log.fleet.used) = (counts, used);
        let seq = log.next_seq();
        if let Some(before) = log.numbers.insert(member.index, seq) {
            log.changed.remove(&before);
        }
        log.changed.insert(seq, member);
        drop(log);
        self.last.send_replace(seq);
    }

    /// Says how far the fleet is.
    pub(super) fn progress(&self) {
        let mut log = self.log();
        let Fleet { phase, reason, counts, used, .. } = log.fleet;
        let seq = log.next_seq();
        log.progress = Some((seq, FleetProgress { phase, reason, counts, used }));
        drop(log);
        self.last.send_replace(seq);
    }

    /// The end, which was recorded: the last frame.
    pub(super) fn end(&self, fleet: Fleet) {
        let phase = fleet.phase;
        self.log().fleet = fleet;
        self.progress();
        let mut log = self.log();
        (log.ended, log.over) = (Some(phase), true);
        drop(log);
        self.last.send_replace(MAX_SEQ);
    }

    /// Ends every stream without an `end` frame: there is more to say, but not here.
    pub(super) fn close(&self) {
        self.log().over = true;
        self.last.send_modify(|_| {});
    }

    /// Resolves when nothing more comes.
    pub(super) async fn over(&self) {
        let mut last = self.last.subscribe();
        while !self.log().over {
            if last.changed().await.is_err() {
                return;
            }
        }
    }

    /// Asks for the end. The first to ask is the one who is told of.
    pub(super) fn cancel(&self, by: String) {
        self.cancelled_by.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(by);
            }
            is_first
        });
    }

    /// Resolves when somebody asked for the end, with who did.
    pub(super) async fn cancelled(&self) -> String {
        let mut asked = self.cancelled_by.subscribe();
        loop {
            if let Some(by) = asked.borrow_and_update().clone() {
                return by;
            }
            asked.changed().await.expect("the sender is in self");
        }
    }

    /// Every frame behind `after`, then those to come.
    pub(super) fn subscribe(self: &Arc<Self>, after: u64) -> FrameStream {
        let start = (Arc::clone(self), self.last.subscribe(), after);
        Box::pin(stream::unfold(start, |(hub, mut last, after)| async move {
            loop {
                last.mark_unchanged();
                let next = hub.log().next(after);
                match next {
                    Next::Frame(frame) => {
                        let seq = frame.seq;
                        return Some((frame, (hub, last, seq)));
                    }
                    Next::End => return None,
                    Next::Wait => {}
                }
                last.changed().await.ok()?;
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

impl Log {
    fn next_seq(&mut self) -> u64 {
        self.seq = (self.seq + 1).min(MAX_SEQ - 1);
        self.seq
    }

    fn next(&self, after: u64) -> Next {
        let member = self.changed.range(after.saturating_add(1)..).next();
        let progress = self.progress.as_ref().filter(|(seq, _)| *seq > after);
        match (member, progress) {
            (Some((seq, member)), progress) if progress.is_none_or(|(other, _)| seq < other) => {
                Next::Frame(numbered(*seq, &FleetFrame::Member(Box::new(member.clone()))))
            }
            (_, Some((seq, progress))) => Next::Frame(numbered(*seq, &FleetFrame::Progress(progress.clone()))),
            (Some(_) | None, None) => match self.ended {
                Some(phase) if after < MAX_SEQ => Next::Frame(numbered(MAX_SEQ, &FleetFrame::End(FleetEnd { phase }))),
                Some(_) => Next::End,
                None if self.over => Next::End,
                None => Next::Wait,
            },
        }
    }
}

pub(super) fn numbered(seq: u64, frame: &FleetFrame) -> Frame {
    Frame::of(seq, frame.kind(), frame)
}

/// What a session that the fleet ends is told, and its audit log with it.
pub(super) fn on_behalf_of(fleet: FleetId, reason: FleetEndReason) -> String {
    format!("{fleet} {}", reason.as_str())
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};
    use uuid::Uuid;
    use wire::{Completion, FrameKind, MemberPhase};

    use super::*;

    fn fleet() -> Fleet {
        Fleet {
            id: FleetId::from_uuid(Uuid::from_u128(1)),
            org_id: OrgId::from_uuid(Uuid::from_u128(2)),
            created_by: "dev".into(),
            name: "a".into(),
            phase: FleetPhase::Pending,
            reason: None,
            completion: Completion::All,
            max_concurrency: None,
            budget: None,
            used: FleetUsage::default(),
            counts: FleetCounts { total: 3, queued: 3, ..FleetCounts::default() },
            labels: BTreeMap::new(),
            created_at: Timestamp::from_millis(0),
            started_at: None,
            finished_at: None,
        }
    }

    fn hub(at: i64) -> Arc<FleetHub> {
        Arc::new(FleetHub::new(fleet(), Timestamp::from_millis(at)))
    }

    fn change(hub: &FleetHub, index: u32, phase: MemberPhase) {
        let mut member = model::fleet::MemberRecord { index, ..Default::default() }.view();
        member.phase = phase;
        hub.member(member, FleetCounts::default(), FleetUsage::default());
    }

    fn read(hub: &Arc<FleetHub>, after: u64) -> Vec<(u64, String)> {
        let mut frames = hub.subscribe(after);
        let all = std::iter::from_fn(|| frames.next().now_or_never().flatten());
        all.map(|frame| {
            let value: serde_json::Value = serde_json::from_str(&frame.data).unwrap();
            let what = if frame.kind == FrameKind::Member {
                format!("{} {}", value["index"], value["phase"].as_str().unwrap())
            } else {
                frame.kind.as_str().to_owned()
            };
            (frame.seq, what)
        })
        .collect()
    }

    fn words(frames: &[(u64, String)]) -> Vec<&str> {
        frames.iter().map(|(_, what)| what.as_str()).collect()
    }

    #[test]
    fn a_late_reader_gets_each_member_once_as_it_is() {
        let hub = hub(0);
        change(&hub, 0, MemberPhase::Running);
        change(&hub, 1, MemberPhase::Running);
        hub.progress();
        change(&hub, 0, MemberPhase::Succeeded);
        let all = read(&hub, 0);
        assert_eq!(words(&all), ["1 running", "progress", "0 succeeded"]);
        assert_eq!(words(&read(&hub, all[1].0)), ["0 succeeded"]);
        assert_eq!(words(&read(&hub, all[2].0)), [""; 0]);
        hub.end(fleet());
        assert_eq!(words(&read(&hub, all[2].0)), ["progress", "end"]);
        assert_eq!(read(&hub, 0).last().unwrap().0, MAX_SEQ);
        assert_eq!(words(&read(&hub, MAX_SEQ)), [""; 0]);
    }

    #[tokio::test]
    async fn readers_are_woken_by_each_frame_and_by_the_end() {
        let hub = hub(0);
        let reader = tokio::spawn(hub.subscribe(0).collect::<Vec<_>>());
        tokio::task::yield_now().await;
        for index in 0..100 {
            change(&hub, index, MemberPhase::Running);
            tokio::task::yield_now().await;
        }
        hub.end(fleet());
        let frames = reader.await.unwrap();
        assert_eq!(frames.iter().filter(|frame| frame.kind == FrameKind::Member).count(), 100);
        assert_eq!(frames.last().unwrap().kind, FrameKind::End);
        hub.over().await;
    }

    #[test]
    fn numbers_only_grow_over_starts_of_the_server() {
        let before = hub(1_795_500_000_000);
        (0..1000).for_each(|index| change(&before, index, MemberPhase::Running));
        let last = read(&before, 0).last().unwrap().0;
        let after = hub(1_795_500_000_001);
        change(&after, 7, MemberPhase::Succeeded);
        assert_eq!(words(&read(&after, last)), ["progress", "7 succeeded"]);
        // Far in the future there is still room for the end.
        let late = hub(4_100_000_000_000);
        change(&late, 0, MemberPhase::Running);
        assert!(read(&late, 0).iter().all(|(seq, _)| *seq < MAX_SEQ));
    }
}
