//! When a call is made again.

use std::time::Duration;

use reqwest::{StatusCode, header::HeaderMap};
use uuid::Uuid;

use crate::ClientError;

/// How often, and after which pauses, a call is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all, the first one included.
    pub attempts: u32,
    /// The pause after the first try; doubled after each further one.
    pub first_pause: Duration,
    /// The longest pause between two tries that the server did not ask for.
    pub longest_pause: Duration,
    /// The longest `Retry-After` that is waited for; a longer one ends the call with the server's answer.
    pub longest_retry_after: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
            longest_retry_after: Duration::from_secs(30),
        }
    }
}

impl Retry {
    /// One try, whatever comes of it.
    pub const NEVER: Self = Self {
        attempts: 1,
        first_pause: Duration::ZERO,
        longest_pause: Duration::ZERO,
        longest_retry_after: Duration::ZERO,
    };

    /// The pause after try number `attempt` (from 1), or none when that was the last.
    pub(crate) fn pause(&self, attempt: u32, retry_after: Option<Duration>) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        if let Some(asked) = retry_after {
            return (asked <= self.longest_retry_after).then_some(asked);
        }
        let doubled = self.first_pause.saturating_mul(1_u32.checked_shl(attempt - 1).unwrap_or(u32::MAX));
        // Up to a quarter less, so that callers who were cut off together do not come back together.
        Some(doubled.min(self.longest_pause).mul_f64(1.0 - 0.25 * unit_random()))
    }
}

fn unit_random() -> f64 {
    f64::from(Uuid::new_v4().as_bytes()[0]) / 256.0
}

/// Whether the same call may do better later.
pub(crate) fn may_pass(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// Whether the same call may do better on another connection.
pub(crate) fn is_connection(error: &ClientError) -> bool {
    match error {
        ClientError::Transport(error) => !error.is_builder() && !error.is_redirect(),
        ClientError::BaseUrl { .. }
        | ClientError::Key
        | ClientError::Path(_)
        | ClientError::File { .. }
        | ClientError::Problem(_)
        | ClientError::Unexpected { .. }
        | ClientError::Decode { .. }
        | ClientError::TooLarge { .. }
        | ClientError::StreamLost { .. } => false,
    }
}

/// `Retry-After` in its form of seconds, the only one that the API sends.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_within_their_bound_and_end() {
        let retry = Retry { attempts: 40, ..Retry::default() };
        let mut before = Duration::ZERO;
        for attempt in 1..6 {
            let pause = retry.pause(attempt, None).unwrap();
            assert!(pause > before, "{attempt}: {pause:?} after {before:?}");
            before = pause;
        }
        assert!(retry.pause(39, None).unwrap() <= retry.longest_pause);
        assert_eq!(retry.pause(40, None), None);
    }

    #[test]
    fn the_server_is_obeyed_unless_it_asks_for_too_much() {
        let retry = Retry::default();
        assert_eq!(retry.pause(1, Some(Duration::from_secs(3))), Some(Duration::from_secs(3)));
        assert_eq!(retry.pause(1, Some(Duration::from_secs(31))), None);
    }
}
