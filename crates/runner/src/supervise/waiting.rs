//! What a turn of the loop waits for, and for how long.

use std::{
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use protocol::Stream;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{End, KILL_AGAIN, Supervisor};
use crate::{census::Census, outbox::Outbox, processes::Rest};

/// What can have something for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Descriptor 0.
    Host,
    /// A child has ended.
    Child,
    /// The language host's channel.
    Control,
    /// A pipe of the program.
    Output(Stream),
    /// The thread that serves files has an answer.
    Files,
    /// The terminal of this number has output, or takes input.
    Terminal(u32),
}

/// What has.
#[derive(Debug, Default)]
pub(super) struct Ready(Vec<Source>);

impl Ready {
    pub(super) fn has(&self, source: Source) -> bool {
        self.0.contains(&source)
    }
}

impl Supervisor {
    /// Waits for something to do.
    pub(super) fn wait(&self, outbox: &Outbox) -> Result<Ready, End> {
        let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
        let to_host = if outbox.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let unsent = self.session.as_ref().is_some_and(|session| !session.unsent().is_empty());
        let control = if unsent { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let reads_output = self.reads_output(outbox);
        let (mut sources, mut polled) = (Vec::with_capacity(8), Vec::with_capacity(8));
        let mut watch = |source, descriptor, flags| {
            sources.push(source);
            polled.push(PollFd::from_borrowed_fd(descriptor, flags));
        };
        watch(Source::Host, stdin, PollFlags::IN);
        watch(Source::Child, self.signals.as_fd(), PollFlags::IN);
        if let Some(descriptor) = &self.interpreter.control {
            watch(Source::Control, descriptor.as_fd(), control);
        }
        if let Some(descriptor) = self.interpreter.stdout.as_ref().filter(|_| reads_output) {
            watch(Source::Output(Stream::Stdout), descriptor.as_fd(), PollFlags::IN);
        }
        if let Some(descriptor) = self.interpreter.stderr.as_ref().filter(|_| reads_output) {
            watch(Source::Output(Stream::Stderr), descriptor.as_fd(), PollFlags::IN);
        }
        if let Some(clerk) = self.clerk.as_ref().filter(|_| outbox.has_room()) {
            watch(Source::Files, clerk.bell(), PollFlags::IN);
        }
        for (number, descriptor, flags) in self.terminals.wanted(outbox.has_room()) {
            watch(Source::Terminal(number), descriptor, flags);
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
        let ready = sources.into_iter().zip(polled).filter(|(_, polled)| !polled.revents().is_empty());
        Ok(Ready(ready.map(|(source, _)| source).collect()))
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
        let count = self.census.as_ref().filter(|_| self.is_running()).and_then(Census::due);
        let due = count.into_iter().chain(self.next_reminder()).chain(self.terminals.due(outbox.has_room())).min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }
}
