//! What this backend enforces, and by what. Pure.

use backend::Capabilities;
use model::{Enforcement, ExecMode, Isolation, Language};

use crate::config::Platform;

/// Who runs a sandbox on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunAs {
    /// Users of its own, who have no right on the host.
    OwnUsers,
    /// `runsc` as root, the sentry as nobody in an empty user namespace: runsc's own default, for hosts that refuse the
    /// other.
    Nobody,
}

/// What was found on this host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'a> {
    pub(crate) runsc_version: &'a str,
    pub(crate) platform: Platform,
    pub(crate) run_as: RunAs,
    /// `v1` or `v2`.
    pub(crate) cgroup: &'a str,
    /// Whether swap is counted, and none is given.
    pub(crate) bounds_swap: bool,
    pub(crate) images: &'a [String],
    /// Whether a sandbox with a way out and its gateway have been tried, and work.
    pub(crate) egress: bool,
}

/// The record.
pub(crate) fn capabilities(found: &Found<'_>) -> Capabilities {
    let Found { runsc_version, platform, run_as, cgroup, bounds_swap, images, egress } = found;
    let user = match run_as {
        RunAs::OwnUsers => "as a host user of the sandbox's own",
        RunAs::Nobody => "as the host's user nobody",
    };
    let (cpu, cpu_time, memory) = match *cgroup {
        "v2" => ("cpu.max", "cpu.stat", "memory.max"),
        _ => ("cpu.cfs_quota_us", "cpuacct.usage", "memory.limit_in_bytes"),
    };
    let swap = if *bounds_swap { "without swap" } else { "with a swappiness of 0" };
    Capabilities {
        name: "gvisor",
        isolation: Isolation::UserspaceKernel,
        executes: true,
        languages: vec![Language::Python, Language::Node],
        exec_modes: vec![ExecMode::Oneshot, ExecMode::Interactive],
        images: images.to_vec(),
        enforcement: Enforcement {
            kernel: format!("gVisor {runsc_version} ({platform}), {user}, in an empty root without capabilities"),
            egress: "no interface but loopback inside, in a network namespace without one outside".into(),
            cpu: format!("cgroup {cgroup} {cpu} (rate); {cpu_time}, watched (time)"),
            memory: format!("cgroup {cgroup} {memory} {swap}, watched"),
            pids: format!("counted by gVisor's pids cgroup, watched by the runner; cgroup {cgroup} pids.max behind it"),
            disk: "a size-bounded file system in one file on the host, watched".into(),
            wall_clock: format!("the session driver's timer; cgroup {cgroup} kill"),
        },
        egress_allowlist: *egress,
        egress_enforcement: egress.then(|| {
            "one gateway process for each session, behind the only pipe that leads out; TCP over IPv4 is captured by \
             gVisor's kernel whatever the program does, DNS is answered by the gateway, UDP and ICMP lead nowhere and are \
             audited; IPv6 has no route but through the proxies"
                .into()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(run_as: RunAs, cgroup: &str) -> Capabilities {
        let platform = Platform::Systrap;
        capabilities(&Found {
            runsc_version: "release-1",
            platform,
            run_as,
            cgroup,
            bounds_swap: true,
            images: &["default".into()],
            egress: run_as == RunAs::Nobody,
        })
    }

    #[test]
    fn the_mechanisms_are_those_of_this_host() {
        let modern = found(RunAs::OwnUsers, "v2").enforcement;
        assert_eq!(
            modern.kernel,
            "gVisor release-1 (systrap), as a host user of the sandbox's own, in an empty root without capabilities"
        );
        assert_eq!(modern.cpu, "cgroup v2 cpu.max (rate); cpu.stat, watched (time)");
        let old = found(RunAs::Nobody, "v1").enforcement;
        assert!(old.kernel.contains("nobody"));
        assert_eq!(old.memory, "cgroup v1 memory.limit_in_bytes without swap, watched");
    }

    #[test]
    fn nothing_is_claimed_that_is_not_there() {
        let capabilities = found(RunAs::OwnUsers, "v2");
        assert!(!capabilities.egress_allowlist && capabilities.egress_enforcement.is_none());
        let with_gateway = found(RunAs::Nobody, "v1");
        assert!(with_gateway.egress_allowlist && with_gateway.egress_enforcement.is_some());
        assert_eq!(capabilities.exec_modes, [ExecMode::Oneshot, ExecMode::Interactive]);
    }
}
