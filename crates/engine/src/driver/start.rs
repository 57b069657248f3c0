//! What goes into the sandbox with the start of a program, and for how long.

use std::time::Duration;

use protocol::{HostFrame, Start};
use wire::KillReason;

use crate::driver::{Driver, inputs::Inputs};

impl Driver {
    /// How long the session may live once it runs, and what has ended it then.
    pub(super) fn life(&self) -> (Duration, KillReason) {
        let wall_clock_ms = self.spec.limits.wall_clock_ms;
        let (ms, reason) = match &self.spec.interactive {
            None => (wall_clock_ms, KillReason::WallClockExceeded),
            Some(bounds) => bounds.life(wall_clock_ms),
        };
        (Duration::from_millis(ms), reason)
    }

    /// The environment of the program: the platform's part, and the caller's, which wins.
    fn env(&self) -> Vec<(String, String)> {
        let given = self.spec.env.iter().map(|(name, value)| (name.clone(), value.clone()));
        let own = self.egress_env().into_iter().filter(|(name, _)| !self.spec.env.contains_key(name));
        own.chain(given).collect()
    }

    pub(super) fn start_frame(&self, inputs: &Inputs) -> HostFrame {
        HostFrame::Start(Box::new(Start {
            session_id: self.session.id.to_string(),
            language: match self.spec.language {
                wire::Language::Python => protocol::Language::Python,
                wire::Language::Node => protocol::Language::Node,
            },
            code: self.spec.code.clone(),
            args: self.spec.args.clone(),
            env: self.env(),
            pids: self.spec.limits.pids,
            output_bytes: self.spec.limits.output_bytes,
            disk_bytes: self.spec.limits.disk_bytes,
            entrypoint: inputs.entrypoint.clone(),
            interactive: self.spec.interactive.is_some(),
            stays: self.wants_artifacts(),
        }))
    }
}
