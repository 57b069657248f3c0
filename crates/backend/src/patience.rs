//! How long our own machinery is waited for.
//!
//! A machine may stand still for a minute and go on (a virtual machine that is paused or moved), with its clock ahead by
//! that minute. All that was waited for has stood still as well, and is not late for it. So patience is counted in steps:
//! whatever time has passed when one is over, it was one. The limits that users set are not counted this way.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep_until};

const STEP: Duration = Duration::from_secs(1);

/// Time to wait for something, of which only so much passes as this process sees pass.
#[derive(Debug)]
pub struct Patience {
    left: Duration,
    until: Instant,
}

impl Patience {
    /// Runs from now on.
    pub fn new(whole: Duration) -> Self {
        Self { left: whole, until: Instant::now() + whole.min(STEP) }
    }

    /// Resolves when it has run out. Cancel-safe: the next call goes on from there.
    pub async fn run_out(&mut self) {
        loop {
            sleep_until(self.until).await;
            self.left = self.left.saturating_sub(STEP);
            if self.left.is_zero() {
                return;
            }
            self.until = Instant::now() + self.left.min(STEP);
        }
    }
}

/// What the work comes to; none if it takes longer than this.
pub async fn within<T>(patience: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut patience = Patience::new(patience);
    tokio::select! {
        biased;
        done = work => Some(done),
        () = patience.run_out() => None,
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::{advance, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_runs_out_after_its_time() {
        for whole in [0, 300, 1000, 2500] {
            let (whole, start) = (Duration::from_millis(whole), Instant::now());
            assert_eq!(within(whole, pending::<()>()).await, None);
            let took = start.elapsed();
            assert!(took >= whole && took < whole + Duration::from_millis(10), "{took:?} instead of {whole:?}");
        }
        assert_eq!(within(Duration::from_secs(3), sleep(Duration::from_secs(2))).await, Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_stood_still_is_a_step() {
        let mut patience = Patience::new(Duration::from_secs(5));
        assert!(tokio::time::timeout(Duration::from_millis(500), patience.run_out()).await.is_err());
        advance(Duration::from_mins(1)).await;
        let start = Instant::now();
        patience.run_out().await;
        assert!(start.elapsed() >= Duration::from_secs(4), "{:?}", start.elapsed());
    }
}
