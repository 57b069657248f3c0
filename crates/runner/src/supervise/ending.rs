//! The end of a program, and of this process: reaping, killing, the last frames.

use std::{os::fd::AsFd as _, path::Path, time::Instant};

use protocol::{DISK_TOLERANCE_BYTES, Exit, GuestFrame, GuestLimit, MAX_FAULT_BYTES};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{End, Ended, KILL_AGAIN, Supervisor, UNKILLABLE};
use crate::{
    census::Census,
    control::Inbox,
    interpreter::{Interpreter, describe},
    log,
    outbox::Outbox,
    processes::{self, Processes, Rest},
    session::Session,
    terminals::Terminals,
};

impl Supervisor {
    pub(super) fn reap(&mut self, outbox: &mut Outbox) -> Result<(), End> {
        // The descriptor only says that there is something to reap; which children, the reaping itself finds out.
        while matches!(rustix::io::read(&self.signals, &mut *self.chunk), Ok(1..)) {}
        let terminals = &mut self.terminals;
        let reaped = processes::reap(self.interpreter.pid, |pid, exit| terminals.ended(pid, exit));
        self.rest = reaped.rest;
        if let Some(exit) = reaped.first {
            self.first_ended(exit, outbox)?;
        }
        if self.is_killing() {
            self.kill();
        }
        Ok(())
    }

    fn first_ended(&mut self, exit: Exit, outbox: &mut Outbox) -> Result<(), End> {
        self.listen_to_language_host(outbox);
        if !self.session.as_ref().is_some_and(Session::is_started) {
            return self.start_again(exit);
        }
        let now = Instant::now();
        self.ended = Some(Ended { exit, deadline: now + UNKILLABLE, kill_at: now, gave_up: false, said: false });
        if let Some(census) = &self.census {
            census.close();
        }
        // They end with it.
        self.terminals = Terminals::default();
        Ok(())
    }

    /// The language host ended before it had the program. A snapshot that was made on another kind of processor is a
    /// reason that can be helped.
    fn start_again(&mut self, exit: Exit) -> Result<(), End> {
        let name = self.launch.language.as_str();
        let message = format!("the {name} host ended before its program: {}: {}", describe(exit), self.last_words());
        if !self.interpreter.from_snapshot {
            return Err(End::Fault(message));
        }
        log::line(&format!("starting without a snapshot: {message}"));
        self.launch.snapshots = None;
        self.interpreter = Interpreter::spawn(&self.launch).map_err(|error| End::Fault(error.to_string()))?;
        self.inbox = Inbox::default();
        self.rest = Rest::Alive;
        if let Some(session) = &mut self.session {
            session.send_again();
        }
        let cgroup = self.census.as_ref().map_or(self.cgroup.as_ref(), Census::cgroup);
        cgroup
            .map_or(Ok(()), |cgroup| cgroup.admit(self.interpreter.pid))
            .map_err(|error| End::Fault(error.to_string()))
    }

    /// What an interpreter that could not start has to say about it.
    fn last_words(&mut self) -> String {
        let stderr = self.interpreter.stderr.as_ref();
        let count = stderr.and_then(|stderr| rustix::io::read(stderr, &mut *self.chunk).ok()).unwrap_or(0);
        String::from_utf8_lossy(&self.chunk[..count.min(MAX_FAULT_BYTES / 2)]).into_owned()
    }

    fn kill(&mut self) {
        let Some(ended) = &mut self.ended else { return };
        let now = Instant::now();
        if now >= ended.kill_at {
            ended.kill_at = now + KILL_AGAIN;
            self.processes.kill();
        }
        if now >= ended.deadline && !ended.gave_up {
            ended.gave_up = true;
            log::line("processes are left that SIGKILL does not end");
        }
    }

    /// Once the pipes are empty, says the last words and waits for them to be taken.
    pub(super) fn finish(&mut self, outbox: &mut Outbox) -> Result<(), End> {
        let draining = self.is_draining();
        let (Some(session), Some(ended)) = (&mut self.session, &mut self.ended) else { return Ok(()) };
        let interpreter = &self.interpreter;
        let silent = interpreter.stdout.is_none() && interpreter.stderr.is_none() || session.budget.is_exceeded();
        if draining && silent && interpreter.control.is_none() && outbox.has_room() {
            session.send_last_result(outbox);
            if let Some(egress) = self.egress.take() {
                egress.settle();
            }
            // Whoever met a full disk has often gone before the host looked at it.
            if self
                .disk
                .as_deref()
                .is_some_and(|disk| used(disk) > session.disk_bytes.saturating_add(DISK_TOLERANCE_BYTES))
            {
                outbox.push(&GuestFrame::Exceeded { limit: GuestLimit::Disk });
            }
            outbox.push(&session.exited(ended.exit));
            ended.said = true;
            outbox.flush_some();
        }
        if ended.said && outbox.is_empty() && !self.stays { Err(End::Complete) } else { Ok(()) }
    }

    /// Leaves nothing behind. As pid 1, leaving is enough: the kernel ends the whole namespace.
    pub(super) fn kill_and_wait(&mut self) {
        let deadline = Instant::now() + UNKILLABLE;
        while self.processes == Processes::Descendants && self.rest != Rest::None && Instant::now() < deadline {
            self.processes.kill();
            let mut ended = [PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)];
            let pause = Timespec::try_from(KILL_AGAIN).expect("a few milliseconds");
            // Interrupted or not, the next round looks again.
            let _ = poll(&mut ended, Some(&pause));
            self.rest = processes::reap(self.interpreter.pid, |_, _| ()).rest;
        }
    }
}

/// Bytes taken on the file system that this directory is on.
fn used(directory: &Path) -> u64 {
    let Ok(of) = rustix::fs::statvfs(directory) else { return 0 };
    of.f_blocks.saturating_sub(of.f_bfree).saturating_mul(of.f_frsize)
}
