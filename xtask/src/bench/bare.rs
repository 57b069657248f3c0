//! Sandboxes without a platform: `runsc` alone, with the same image and the same gVisor, no cgroup and no server.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, ensure};
use serde_json::json;

/// The two ends of a network of a bare sandbox, in the range that is set aside for benchmarks (RFC 2544).
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(198, 18, 213, 1);
const SANDBOX: Ipv4Addr = Ipv4Addr::new(198, 18, 213, 2);
/// From Linux 6.18 on runsc takes every network namespace for the host's if it finds this in it; where it is empty, it
/// does not look further.
const HIDE: &str = "mount -t tmpfs -o ro tmpfs /proc/sys/net/core && exec \"$@\"";

/// A program of one.
pub(super) struct Bare {
    runsc: PathBuf,
    folder: tempfile::TempDir,
    network: Option<Network>,
}

impl Bare {
    pub(super) fn of(args: &[&str]) -> anyhow::Result<Self> {
        Self::new(args, &[], None)
    }

    /// With gVisor's own network stack, and a wire to [`HOST`].
    pub(super) fn connected(args: &[&str], env: &[(&str, String)], network: Network) -> anyhow::Result<Self> {
        Self::new(args, env, Some(network))
    }

    fn new(args: &[&str], env: &[(&str, String)], network: Option<Network>) -> anyhow::Result<Self> {
        let runsc = std::env::var_os("ENCLAVE_RUNSC").map_or_else(|| PathBuf::from("runsc"), PathBuf::from);
        let folder = tempfile::tempdir()?;
        let image = image()?;
        let env = env.iter().map(|(name, value)| format!("{name}={value}"));
        let env: Vec<String> =
            ["PATH=/usr/bin:/bin", "HOME=/workspace"].map(String::from).into_iter().chain(env).collect();
        let namespace = network.as_ref().map_or_else(
            || json!({ "type": "network" }),
            |network| json!({ "type": "network", "path": Path::new("/var/run/netns").join(&network.name) }),
        );
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 65534, "gid": 65534 }, "args": args, "cwd": "/workspace",
                "env": env, "noNewPrivileges": true
            },
            "root": { "path": folder.path().join("root"), "readonly": true },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/workspace", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777", "size=64m"] },
                { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777", "size=64m"] }
            ],
            "linux": {
                "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, namespace]
            },
            "annotations": {
                "dev.gvisor.spec.rootfs.source": image, "dev.gvisor.spec.rootfs.type": "erofs",
                "dev.gvisor.spec.rootfs.overlay": "memory"
            }
        });
        fs::create_dir(folder.path().join("root"))?;
        fs::write(folder.path().join("config.json"), config.to_string())?;
        Ok(Self { runsc, folder, network })
    }

    /// Runs it to its end.
    pub(super) fn run(&self) -> anyhow::Result<Output> {
        let name = format!("bench-{}", std::process::id());
        let mut run = self.command("run");
        run.arg("--bundle").arg(self.bundle()).arg(&name).stdin(Stdio::null()).output().context("start runsc")
    }

    pub(super) fn bundle(&self) -> &Path {
        self.folder.path()
    }

    /// A command of runsc, under a root of its own.
    pub(super) fn command(&self, name: &str) -> Command {
        let mut command = match &self.network {
            None => Command::new(&self.runsc),
            Some(network) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &network.name, "unshare", "--mount", "sh", "-c", HIDE, "sh"]);
                command.arg(&self.runsc);
                command
            }
        };
        command.arg(format!("--root={}", self.folder.path().join("state").display()));
        command.arg(if self.network.is_some() { "--network=sandbox" } else { "--network=none" });
        command.args(["--ignore-cgroups", "--platform=systrap", "--overlay2=none", name]);
        command
    }
}

/// A network namespace with a wire to the host. Goes away with this.
pub(super) struct Network {
    name: String,
}

impl Network {
    /// Takes root, and `ip`.
    pub(super) fn lay() -> anyhow::Result<Self> {
        let number = std::process::id();
        let (outer, inner) = (format!("encbo{number}"), format!("encbi{number}"));
        ip(&["netns", "add", &format!("enclave-bench-{number}")])?;
        let network = Self { name: format!("enclave-bench-{number}") };
        let name = network.name.as_str();
        ip(&["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", name])?;
        ip(&["addr", "add", &format!("{HOST}/30"), "dev", &outer])?;
        ip(&["link", "set", &outer, "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{SANDBOX}/30"), "dev", &inner])?;
        ip(&["-n", name, "link", "set", &inner, "up"])?;
        ip(&["-n", name, "route", "add", "default", "via", &HOST.to_string()])?;
        Ok(network)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Its wire goes with it.
        if let Err(error) = ip(&["netns", "delete", &self.name]) {
            eprintln!("bench: {error:#}");
        }
    }
}

fn ip(words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(words).stdin(Stdio::null()).output().context("start ip")?;
    ensure!(output.status.success(), "ip {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn image() -> anyhow::Result<PathBuf> {
    let folder =
        std::env::var_os("ENCLAVE_IMAGE_DIR").map_or_else(|| PathBuf::from("/var/lib/enclave/images"), PathBuf::from);
    let image = folder.join("default/root.erofs");
    ensure!(image.exists(), "{} is missing: run `make image`", image.display());
    Ok(image)
}
