//! A sandbox that waits for a session is stopped. Idle it is not: the timers of its sentry take some six percent of a core.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::live::Live;

/// Between two looks at what it does.
const LOOK: Duration = Duration::from_millis(250);
/// The part of this time in which a sandbox that does nothing may run: one that boots its language takes most of a core.
const QUIET_ONE_IN: u32 = 8;

/// Stops it when its language has booted as well, which goes on after the runner has said hello. What is stopped in the
/// middle would be as good, and slow.
pub(crate) async fn once_it_is_quiet(live: Arc<Live>) {
    let mut before = None;
    while !live.is_awake() && live.termination().is_none() {
        let now = live.group.counters().ok().map(|counters| Duration::from_micros(counters.cpu_us));
        if let (Some(before), Some(now)) = (before, now)
            && now.saturating_sub(before) < LOOK / QUIET_ONE_IN
        {
            if let Err(failed) = live.rest() {
                // It costs a little, and is as good as any other.
                tracing::debug!(sandbox = %live.id, error = %failed.source, "a sandbox that waits does not rest");
            }
            return;
        }
        before = now;
        sleep(LOOK).await;
    }
}
