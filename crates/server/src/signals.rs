//! SIGINT and SIGTERM, counted.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// How often somebody has asked this process to stop.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    count: watch::Receiver<u32>,
    /// Whether one of them was SIGTERM.
    terminated: watch::Receiver<bool>,
}

impl Signals {
    /// Takes both signals from now on, for good.
    pub(crate) fn take() -> std::io::Result<Self> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (sender, count) = watch::channel(0);
        let (term, terminated) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                let arrived = tokio::select! {
                    arrived = interrupt.recv() => arrived,
                    arrived = terminate.recv() => {
                        term.send_replace(true);
                        arrived
                    }
                };
                if arrived.is_none() {
                    return;
                }
                sender.send_modify(|count| *count += 1);
            }
        });
        Ok(Self { count, terminated })
    }

    /// Whether there has been one.
    pub(crate) fn any(&self) -> bool {
        *self.count.borrow() > 0
    }

    /// How many there have been.
    pub(crate) fn count(&self) -> u32 {
        *self.count.borrow()
    }

    /// Waits for SIGTERM.
    pub(crate) async fn terminated(&self) {
        let mut terminated = self.terminated.clone();
        if terminated.wait_for(|terminated| *terminated).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until there have been `n`.
    pub(crate) async fn at_least(&self, n: u32) {
        let mut count = self.count.clone();
        if count.wait_for(|count| *count >= n).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
