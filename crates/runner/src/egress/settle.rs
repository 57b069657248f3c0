//! The end of a program: what its datagrams were meant for is told before the sandbox ends.

use std::{sync::mpsc, time::Duration};

use rustix::{
    event::{EventfdFlags, eventfd},
    fd::{AsFd as _, BorrowedFd, OwnedFd},
    io::Errno,
};

/// How long it may take. A gateway that takes no more holds up nobody's end.
const PATIENCE: Duration = Duration::from_secs(1);

/// The end that asks.
#[derive(Debug)]
pub(crate) struct Settler {
    ask: OwnedFd,
    settled: mpsc::Receiver<()>,
}

/// The end of the thread that is asked.
#[derive(Debug)]
pub(super) struct Settle {
    asked: OwnedFd,
    settled: mpsc::Sender<()>,
    is_asked: bool,
}

pub(super) fn pair() -> Result<(Settler, Settle), Errno> {
    let asked = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let ask = rustix::io::fcntl_dupfd_cloexec(&asked, 0)?;
    let (say, settled) = mpsc::channel();
    Ok((Settler { ask, settled }, Settle { asked, settled: say, is_asked: false }))
}

impl Settler {
    /// Returns when everything that was attempted is told, or the gateway has gone, or takes too long. To be called
    /// when nobody is left to attempt anything.
    pub(crate) fn settle(self) {
        if rustix::io::write(&self.ask, &1_u64.to_ne_bytes()).is_ok() {
            let _ = self.settled.recv_timeout(PATIENCE);
        }
    }
}

impl Settle {
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.asked.as_fd()
    }

    /// Takes the question.
    pub(super) fn begin(&mut self) {
        self.is_asked |= rustix::io::read(&self.asked, &mut [0; 8]).is_ok();
    }

    /// There is nothing left to tell.
    pub(super) fn done(&mut self) {
        if std::mem::take(&mut self.is_asked) {
            // Who has asked may have lost patience.
            let _ = self.settled.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn whoever_asks_waits_until_it_is_done_or_the_thread_has_gone() {
        let (settler, mut settle) = pair().expect("a pair");
        settle.begin();
        settle.done();
        assert!(settler.settled.try_recv().is_err(), "nobody has asked");
        let waits = thread::spawn(|| settler.settle());
        while !settle.is_asked {
            settle.begin();
        }
        assert!(!waits.is_finished());
        settle.done();
        waits.join().expect("ends");

        let (settler, settle) = pair().expect("a pair");
        drop(settle);
        settler.settle();
    }
}
