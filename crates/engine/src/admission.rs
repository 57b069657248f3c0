//! Places: a ceiling on sessions that hold a sandbox, and a bounded queue in front of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::CreateError;

/// When a refused caller should come again. Sessions are short; the queue moves within this.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The ceiling and the queue. First come, first served.
#[derive(Debug)]
pub(crate) struct Slots {
    running: Arc<Semaphore>,
    taken: Arc<AtomicUsize>,
    capacity: usize,
}

/// A place in the queue, or beyond it: counted until dropped.
#[derive(Debug)]
pub(crate) struct Place {
    running: Arc<Semaphore>,
    taken: Arc<AtomicUsize>,
}

impl Slots {
    /// `ceiling` sessions at once, `queue` more waiting.
    pub(crate) fn new(ceiling: usize, queue: usize) -> Self {
        Self {
            running: Arc::new(Semaphore::new(ceiling.min(Semaphore::MAX_PERMITS))),
            taken: Arc::default(),
            capacity: ceiling.saturating_add(queue),
        }
    }

    /// Takes a place, or refuses at once.
    pub(crate) fn reserve(&self) -> Result<Place, CreateError> {
        let counted = self
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| (taken < self.capacity).then_some(taken + 1));
        match counted {
            Ok(_) => Ok(Place { running: Arc::clone(&self.running), taken: Arc::clone(&self.taken) }),
            Err(_) => Err(CreateError::Busy { retry_after: RETRY_AFTER }),
        }
    }

    /// Sessions that wait or run.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }
}

impl Place {
    /// Waits for the session's turn. The permit and the place are held until its sandbox is gone.
    pub(crate) async fn turn(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.running).acquire_owned().await.expect("the semaphore is never closed")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn beyond_ceiling_and_queue_callers_are_refused_until_a_place_is_free() {
        let slots = Slots::new(1, 1);
        let first = slots.reserve().unwrap();
        let permit = first.turn().await;
        let second = slots.reserve().unwrap();
        assert!(matches!(slots.reserve(), Err(CreateError::Busy { .. })));
        drop((permit, first));
        let _turn = second.turn().await;
        slots.reserve().unwrap();
        assert_eq!(slots.taken(), 1);
    }
}
