//! How much of a binding one session may use.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use wire::BindingBudget;

/// A binding's budget and what was used of it.
#[derive(Debug)]
pub(super) struct Budget {
    most: BindingBudget,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    calls: u64,
    bytes: u64,
    since: Option<Instant>,
}

/// It is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spent {
    pub(super) detail: String,
    /// Seconds until there is more, if there will be.
    pub(super) retry_after: Option<u64>,
}

impl Budget {
    pub(super) fn new(most: Option<BindingBudget>) -> Self {
        Self { most: most.unwrap_or_default(), used: Mutex::default() }
    }

    /// Takes a call.
    pub(super) fn call(&self) -> Result<(), Spent> {
        let now = Instant::now();
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        self.renew(&mut used, now);
        if let Some(most) = self.most.calls.filter(|most| used.calls >= *most) {
            return Err(self.spent(&used, now, &format!("{most} calls")));
        }
        if let Some(most) = self.most.bytes.filter(|most| used.bytes >= *most) {
            return Err(self.spent(&used, now, &format!("{most} bytes")));
        }
        used.calls += 1;
        used.since.get_or_insert(now);
        Ok(())
    }

    /// Takes bytes. They are taken also when there are too many: they have come.
    pub(super) fn bytes(&self, bytes: usize) -> Result<(), Spent> {
        let Some(most) = self.most.bytes else { return Ok(()) };
        let now = Instant::now();
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        self.renew(&mut used, now);
        used.since.get_or_insert(now);
        used.bytes = used.bytes.saturating_add(bytes as u64);
        if used.bytes > most { Err(self.spent(&used, now, &format!("{most} bytes"))) } else { Ok(()) }
    }

    fn window(&self) -> Option<Duration> {
        self.most.window_ms.map(Duration::from_millis)
    }

    fn renew(&self, used: &mut Used, now: Instant) {
        if let (Some(window), Some(since)) = (self.window(), used.since)
            && now.duration_since(since) >= window
        {
            *used = Used::default();
        }
    }

    fn spent(&self, used: &Used, now: Instant, what: &str) -> Spent {
        match self.window() {
            None => Spent { detail: format!("its budget of {what} is used up for this session"), retry_after: None },
            Some(window) => {
                let left = window.saturating_sub(used.since.map_or(Duration::ZERO, |since| now.duration_since(since)));
                let seconds = left.as_millis().div_ceil(1000).max(1);
                Spent {
                    detail: format!(
                        "its budget of {what} in {} ms is used up; more in {seconds} s",
                        window.as_millis()
                    ),
                    retry_after: u64::try_from(seconds).ok(),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_budget_comes_back_with_its_window() {
        let most = BindingBudget { calls: Some(2), bytes: Some(10), window_ms: Some(5000) };
        let budget = Budget::new(Some(most));
        advance(Duration::from_mins(1)).await;
        assert_eq!(budget.call(), Ok(()));
        advance(Duration::from_millis(1500)).await;
        assert_eq!(budget.call(), Ok(()));
        assert_eq!(budget.call().unwrap_err().retry_after, Some(4));
        assert_eq!(budget.bytes(10), Ok(()));
        assert!(budget.bytes(1).unwrap_err().detail.contains("10 bytes in 5000 ms"));
        advance(Duration::from_millis(3500)).await;
        assert_eq!(budget.bytes(10), Ok(()));
        assert_eq!(budget.call().unwrap_err().retry_after, Some(5));
        advance(Duration::from_secs(5)).await;
        assert_eq!(budget.call(), Ok(()));
    }

    #[tokio::test]
    async fn without_a_window_it_is_for_the_session() {
        let budget = Budget::new(Some(BindingBudget { calls: Some(1), bytes: None, window_ms: None }));
        assert_eq!(budget.call(), Ok(()));
        let spent = budget.call().unwrap_err();
        assert_eq!(spent.retry_after, None);
        assert_eq!(spent.detail, "its budget of 1 calls is used up for this session");
        assert_eq!(budget.bytes(usize::MAX), Ok(()));
        assert_eq!(Budget::new(None).call(), Ok(()));
    }
}
