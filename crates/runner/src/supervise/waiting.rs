//! What a turn of the loop waits for, and for how long.

use std::{
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{End, KILL_AGAIN, Supervisor};
use crate::{outbox::Outbox, processes::Rest};

/// Which descriptors have something for us.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Ready {
    pub(super) host: bool,
    pub(super) child: bool,
    pub(super) control: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
}

impl Supervisor {
    /// Waits for something to do.
    pub(super) fn wait(&self, outbox: &Outbox) -> Result<Ready, End> {
        let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
        let to_host = if outbox.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let unsent = self.session.as_ref().is_some_and(|session| !session.unsent().is_empty());
        let control = if unsent { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let reads_output = self.reads_output(outbox);
        let (mut sources, mut polled) = (Vec::with_capacity(6), Vec::with_capacity(6));
        let mut watch = |source: fn(&mut Ready) -> &mut bool, descriptor, flags| {
            sources.push(source);
            polled.push(PollFd::from_borrowed_fd(descriptor, flags));
        };
        watch(|ready| &mut ready.host, stdin, PollFlags::IN);
        watch(|ready| &mut ready.child, self.signals.as_fd(), PollFlags::IN);
        if let Some(descriptor) = &self.interpreter.control {
            watch(|ready| &mut ready.control, descriptor.as_fd(), control);
        }
        if let Some(descriptor) = self.interpreter.stdout.as_ref().filter(|_| reads_output) {
            watch(|ready| &mut ready.stdout, descriptor.as_fd(), PollFlags::IN);
        }
        if let Some(descriptor) = self.interpreter.stderr.as_ref().filter(|_| reads_output) {
            watch(|ready| &mut ready.stderr, descriptor.as_fd(), PollFlags::IN);
        }
        polled.push(PollFd::from_borrowed_fd(stdout, to_host));
        let timeout =
            self.timeout(outbox).map(|wait| Timespec::try_from(wait).expect("no wait is longer than seconds"));
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(End::Fault(format!("poll: {errno}"))),
        }
        let to_host = polled.pop().map_or(PollFlags::empty(), |host| host.revents());
        if to_host.intersects(PollFlags::ERR | PollFlags::NVAL) {
            return Err(End::HostGone);
        }
        let mut ready = Ready::default();
        for (source, polled) in sources.into_iter().zip(polled) {
            *source(&mut ready) = !polled.revents().is_empty();
        }
        Ok(ready)
    }

    fn timeout(&self, outbox: &Outbox) -> Option<Duration> {
        if self.is_draining() {
            return outbox.has_room().then_some(Duration::ZERO);
        }
        if self.rest == Rest::Unknown {
            return Some(Duration::ZERO);
        }
        if self.is_killing() {
            return Some(KILL_AGAIN);
        }
        let due = self.census.as_ref().filter(|_| self.is_running())?.due()?;
        Some(due.saturating_duration_since(Instant::now()))
    }
}
