//! The nouns of the seam.

use std::{fmt, str::FromStr, time::Duration};

use model::{Language, gateway::GatewaySpec, limits::Limits};

use crate::{Channel, Gateway};

/// Name of a sandbox, unique on the host: `sbx-` and 32 hexadecimal digits. It names cgroups, directories and
/// containers, so nothing else is ever accepted as one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SandboxId(String);

impl SandboxId {
    /// Makes an id from 128 random bits.
    pub fn from_bits(bits: u128) -> Self {
        Self(format!("sbx-{bits:032x}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SandboxId {
    type Err = NotASandboxId;

    fn from_str(text: &str) -> Result<Self, NotASandboxId> {
        let digits = text.strip_prefix("sbx-").ok_or(NotASandboxId)?;
        let valid = digits.len() == 32 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if valid { Ok(Self(text.to_owned())) } else { Err(NotASandboxId) }
    }
}

/// The text is not a sandbox's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a sandbox id")]
pub struct NotASandboxId;

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What must be known to boot a sandbox, and nothing of any tenant: sandboxes of one shape are interchangeable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Name of the image; checked against [`crate::Capabilities::images`].
    pub image: String,
    /// The language host that the runner starts ahead of the program.
    pub language: Language,
    /// Size of the writable file systems together, in bytes: fixed when they are mounted.
    pub disk_bytes: u64,
    /// Whether there is a way out, to a gateway.
    pub egress: bool,
}

/// What a session adds to a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxSpec {
    /// Its limits. `disk_bytes` is the shape's; wall clock and output are the driver's to enforce.
    pub limits: Limits,
    /// What its gateway has to know; there exactly if the shape has a way out.
    pub gateway: Option<GatewaySpec>,
    /// How long a sandbox may go on once it is over a limit that leaves one ([`SandboxLimit::leaves_grace`]), for a driver
    /// that hears of it ([`crate::SessionBackend::overrun`]), ends the program itself and has its files. Zero: it is ended
    /// at once.
    pub grace: Duration,
}

/// A booted sandbox that belongs to nobody.
#[derive(Debug)]
pub struct Prepared {
    /// Its name.
    pub id: SandboxId,
    /// The pipe to its runner, which has said hello.
    pub channel: Channel,
    /// What it was booted as.
    pub shape: Shape,
}

/// A sandbox with a session's limits in force.
#[derive(Debug)]
pub struct Sandbox {
    /// Its name.
    pub id: SandboxId,
    /// The pipe to its runner.
    pub channel: Channel,
    /// Its gateway, configured and serving, if it has a way out.
    pub gateway: Option<Gateway>,
}

/// A limit that the backend itself watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SandboxLimit {
    /// CPU time.
    Cpu,
    /// Memory.
    Memory,
    /// Processes and threads.
    Pids,
    /// Files.
    Disk,
}

impl SandboxLimit {
    /// Whether a sandbox that is over it still does what its driver asks for. One that has no process left to start does not.
    pub fn leaves_grace(self) -> bool {
        match self {
            Self::Cpu | Self::Memory | Self::Disk => true,
            Self::Pids => false,
        }
    }
}

/// How a sandbox ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Termination {
    /// Its processes ended by themselves.
    Exited,
    /// The backend ended it over one of its limits.
    Exceeded(SandboxLimit),
    /// [`crate::SessionBackend::kill`] or `destroy` ended it.
    Killed,
    /// It ended in a way that has no other name (the sandbox's own kernel crashed, say).
    Lost(String),
}

/// What a sandbox used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SandboxUsage {
    /// CPU time, user and system, of everything in it, in milliseconds.
    pub cpu_ms: u64,
    /// Highest memory use of everything in it, in bytes.
    pub memory_peak_bytes: u64,
}

/// A look at a sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// What it used so far.
    pub usage: SandboxUsage,
    /// The first limit that it went over.
    pub exceeded: Option<SandboxLimit>,
}

/// What is left of a sandbox after a try to remove it, one line each: `cgroup …`, `process …`, `mount …`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residue(pub Vec<String>);

impl Residue {
    /// Nothing is left.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether nothing is left.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_form_is_a_sandbox_id() {
        let id = SandboxId::from_bits(7);
        assert_eq!(id.as_str().parse::<SandboxId>(), Ok(id));
        for other in ["", "sbx-", "sbx-../../x", "sbx-0000000000000000000000000000000G", "x", "sbx-00"] {
            assert_eq!(other.parse::<SandboxId>(), Err(NotASandboxId), "{other}");
        }
    }
}
