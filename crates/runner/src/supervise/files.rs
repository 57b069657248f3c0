//! What the host wants besides the program's own course: its files, and its end.

use protocol::{Start, files::FileCall};

use super::{End, Supervisor};
use crate::{
    files::{Clerk, Served, TooManyCalls},
    outbox::Outbox,
    session::Session,
};

impl Supervisor {
    /// Starts what serves files: before the program, while there are rights to give up for it.
    pub(super) fn serve_files(&mut self, start: &Start) -> Result<(), End> {
        let clerk = Clerk::start(Served {
            workspace: self.launch.workspace.clone(),
            user: self.launch.user,
            disk_bytes: start.disk_bytes,
            own_disk: self.disk.is_some(),
        });
        self.clerk = Some(clerk.map_err(|error| End::Fault(format!("starting a thread: {error}")))?);
        self.stays = start.stays;
        Ok(())
    }

    pub(super) fn call(&mut self, call: FileCall) -> Result<(), End> {
        let Some(clerk) = &self.clerk else {
            return Err(End::Fault("the host asked for files before the start".to_owned()));
        };
        clerk.call(call).map_err(|TooManyCalls| End::Fault("the host has too many calls under way".to_owned()))
    }

    /// Passes one answer on.
    pub(super) fn answer_host(&mut self, outbox: &mut Outbox) {
        if let Some(reply) = self.clerk.as_ref().and_then(Clerk::answer) {
            outbox.push(&protocol::GuestFrame::File(reply));
        }
    }

    /// Ends the program, whose end is then told as any other.
    pub(super) fn stop(&mut self) -> Result<(), End> {
        if !self.session.as_ref().is_some_and(Session::is_started) {
            return Err(End::Fault("the host stopped a program that does not run".to_owned()));
        }
        if self.ended.is_none() {
            if let Some(census) = &self.census {
                // Nothing new may be forked while the killing goes on.
                census.close();
            }
            self.processes.kill();
        }
        Ok(())
    }

    /// What it means that the host has closed the pipe.
    pub(super) fn hung_up(&self) -> End {
        if self.stays && self.ended.as_ref().is_some_and(|ended| ended.said) { End::Complete } else { End::HostGone }
    }
}
