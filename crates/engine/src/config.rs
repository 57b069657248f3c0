//! What a deployment decides about the engine.

use std::time::Duration;

use model::{
    egress::Deployment,
    gateway::GatewayLimits,
    interactive::{self, Interactive},
    limits::{CEILING, Limits},
    webhook::Receivers,
};

use crate::Keep;

/// Who may call without an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Loopback only; unauthenticated calls act as the owner of org `dev`.
    Dev,
    /// Every call is authenticated.
    SelfHost,
}

/// The engine's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who may call without an identity.
    pub profile: Profile,
    /// Sessions that hold a sandbox at the same time.
    pub max_concurrency: usize,
    /// Sessions that may wait for a place; more are refused with `busy`.
    pub max_queue: usize,
    /// The most that a session may ask for.
    pub maxima: Limits,
    /// The most that an interactive session may ask for.
    pub interactive: Interactive,
    /// What the deployment says of egress for all sessions.
    pub deployment: Deployment,
    /// How much traffic a session may have.
    pub gateway: GatewayLimits,
    /// Who may be told that a session ended.
    pub receivers: Receivers,
    /// Bytes of output frames kept for late and returning readers, over all sessions.
    pub replay_bytes: usize,
    /// What is kept of sessions' files; nothing, and sessions that ask for it are refused, when absent.
    pub artifacts: Option<Keep>,
    /// How long a sandbox that is not ours to know (left by a failed start) may stand before it is removed.
    pub orphan_patience: Duration,
    /// How often the reaper looks for orphans, and tries again to remove residue.
    pub reap_interval: Duration,
    /// How long a sandbox may take until its session's limits are in force.
    pub boot_patience: Duration,
    /// How long the clone of a repository may take, from the start of its program.
    pub clone_patience: Duration,
    /// How long any other call to a backend may take.
    pub call_patience: Duration,
    /// How long the removal of everything is tried again, before the first session and after the last.
    pub sweep_patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            profile: Profile::SelfHost,
            max_concurrency: 8,
            max_queue: 1000,
            maxima: CEILING,
            interactive: interactive::CEILING,
            deployment: Deployment::default(),
            gateway: GatewayLimits::default(),
            receivers: Receivers::default(),
            replay_bytes: 64 * 1024 * 1024,
            artifacts: None,
            orphan_patience: Duration::from_mins(2),
            reap_interval: Duration::from_secs(5),
            // gVisor itself gives up a boot after 10 seconds, takes as long to see its end, and 20 to remove what is left.
            boot_patience: Duration::from_mins(1),
            clone_patience: Duration::from_mins(2),
            // Its longest call is the removal, with 20 seconds.
            call_patience: Duration::from_secs(25),
            sweep_patience: Duration::from_secs(10),
        }
    }
}
