//! The watcher: one task per sandbox, from its start to its end.
//!
//! It wakes when `runsc` ends, when the kernel says that memory ran out, and whenever a limit that can only be read
//! could be overrun. Over a limit it ends the sandbox, whether that still reacts or hangs.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use tokio::{
    net::unix::pipe,
    task::{self, JoinHandle},
};

use crate::{
    bell::Bell,
    live::{Live, Processes},
    process,
};

/// How long the log is waited for after the end.
const LOG_PATIENCE: Duration = Duration::from_millis(100);
/// The longest pause when the end of the sandbox or the alarm must be looked for.
const BLIND_PAUSE: Duration = Duration::from_millis(20);
/// Between two looks for the alarm's sake: a workload at its memory limit can make it ring without end.
const LEAST_GAP: Duration = Duration::from_millis(2);

/// Watches a sandbox that was just started.
pub(crate) async fn run(live: Arc<Live>, processes: Arc<Processes>, stderr: OwnedFd) {
    let log = follow(&live, stderr);
    let bells = Bells::hang(&live, &processes);
    if let Err(error) = &bells {
        tracing::warn!(sandbox = %live.id, %error, "watched by looking alone");
    }
    let bells = bells.ok();
    while !process::await_end(processes.runsc(), Duration::ZERO) {
        let look = live.look();
        if look.is_due {
            end(&live).await;
            break;
        }
        match &bells {
            Some(bells) => {
                tokio::select! {
                    () = bells.ring() => {}
                    () = live.changed.notified() => {}
                    () = tokio::time::sleep(look.pause) => {}
                }
            }
            None => tokio::time::sleep(look.pause.min(BLIND_PAUSE)).await,
        }
    }
    if let Some(log) = log {
        // A descendant may hold the pipe open.
        let _ = tokio::time::timeout(LOG_PATIENCE, log).await;
    }
    blocking(&live, Live::finish).await;
}

/// Ends a sandbox without blocking the caller's thread.
pub(crate) async fn end(live: &Arc<Live>) {
    blocking(live, Live::end).await;
}

async fn blocking(live: &Arc<Live>, work: fn(&Live)) {
    let own = Arc::clone(live);
    if let Err(error) = task::spawn_blocking(move || work(&own)).await {
        tracing::error!(sandbox = %live.id, %error, "ending a sandbox");
    }
}

fn follow(live: &Live, stderr: OwnedFd) -> Option<JoinHandle<()>> {
    let pipe = pipe::Receiver::from_owned_fd(stderr).ok()?;
    Some(tokio::spawn(live.log.clone().follow(pipe)))
}

/// What wakes the watcher out of turn.
struct Bells {
    end: Bell,
    memory: Bell,
}

impl Bells {
    fn hang(live: &Live, processes: &Processes) -> io::Result<Self> {
        Ok(Self { end: Bell::hang(processes.runsc().try_clone()?)?, memory: Bell::hang(live.group.alarm()?)? })
    }

    async fn ring(&self) {
        let memory = async {
            tokio::time::sleep(LEAST_GAP).await;
            self.memory.ring().await
        };
        // A bell that is broken rings, too: one look too many.
        tokio::select! {
            result = self.end.hear() => if result.is_err() { tokio::time::sleep(BLIND_PAUSE).await },
            result = memory => if result.is_err() { tokio::time::sleep(BLIND_PAUSE).await },
        }
    }
}
