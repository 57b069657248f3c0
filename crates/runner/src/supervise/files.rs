//! What the host wants besides the program's own course: its files, and its end.

use protocol::{GuestFrame, Start, files::FileCall};

use super::{End, Supervisor};
use crate::{
    census::Cgroup,
    control::environment,
    files::{Answer, Clerk, Served, TooManyCalls},
    outbox::Outbox,
    session::Session,
    terminals::Ground,
};

impl Supervisor {
    /// Starts what serves files: before the program, while there are rights to give up for it.
    pub(super) fn serve_files(&mut self, start: &Start) -> Result<(), End> {
        let clerk = Clerk::start(Served {
            workspace: self.launch.workspace.clone(),
            user: self.launch.user,
            disk_bytes: start.disk_bytes,
            own_disk: self.disk.is_some(),
            ground: self.ground(start)?,
        });
        self.clerk = Some(clerk.map_err(|error| End::Fault(format!("starting a thread: {error}")))?);
        self.stays = start.stays;
        Ok(())
    }

    /// What terminals have in common with the program.
    fn ground(&self, start: &Start) -> Result<Ground, End> {
        let env: Vec<_> = self.interpreter.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let env = environment(&env, start).map_err(|error| End::Fault(error.to_string()))?;
        let cgroup = self.cgroup.as_ref().map(Cgroup::entrance).transpose();
        let cgroup = cgroup.map_err(|error| End::Fault(format!("the workload's cgroup: {error}")))?;
        Ok(Ground { user: self.launch.user, directory: self.launch.workspace.clone(), env, cgroup })
    }

    pub(super) fn call(&mut self, call: FileCall) -> Result<(), End> {
        let Some(clerk) = &self.clerk else {
            return Err(End::Fault("the host asked for files before the start".to_owned()));
        };
        clerk.call(call).map_err(|TooManyCalls| End::Fault("the host has too many calls under way".to_owned()))
    }

    /// Passes one answer on.
    pub(super) fn answer_host(&mut self, outbox: &mut Outbox) {
        match self.clerk.as_ref().and_then(Clerk::answer) {
            Some(Answer::File(reply)) => outbox.push(&GuestFrame::File(reply)),
            Some(Answer::Terminal(number, made)) => self.terminals.opened(number, made, outbox),
            None => {}
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
