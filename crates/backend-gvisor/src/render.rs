//! What gVisor is told: the OCI configuration of a sandbox, and the command line of `runsc`. Pure.
//!
//! `runsc` may run as a user who can reach nothing of ours by path, so every path that it opens leads through a
//! descriptor that it inherits ([`inherited`]). The sentry, gVisor's kernel, holds no descriptor of a directory and
//! talks to no file server when the image is an EROFS file: what it has of the host is the image, the runner (both
//! read-only), the file that backs the disk, and three pipes.

use std::{collections::HashMap, path::Path};

use backend::SandboxId;
use model::Language;
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder,
    ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use crate::config::Platform;

/// Where the disk is in the sandbox. The image needs this directory; the runner binds its parts to `/workspace`, `/tmp`
/// and `/dev/shm`.
pub(crate) const DISK: &str = "/disk";

/// Names in the directory of a sandbox.
pub(crate) const DISK_DIR: &str = "disk";
pub(crate) const STATE_DIR: &str = "state";
pub(crate) const ROOT_DIR: &str = "root";

/// What the file system inside takes above the session's limit, so that the overrun is seen from outside.
pub(crate) const DISK_SLACK: u64 = 1024 * 1024;

/// The capabilities of the runner, all of them in gVisor's kernel alone: to lay out the disk (`SYS_ADMIN`), to start the
/// workload as another user, to end it, and to give them all up.
const CAPABILITIES: [Capability; 5] =
    [Capability::Setuid, Capability::Setgid, Capability::Kill, Capability::SysAdmin, Capability::Setpcap];

/// What it needs besides for a way out: addresses, rules and raw sockets of the sandbox's own network stack. Given up with
/// the others, before any workload.
const EGRESS_CAPABILITIES: [Capability; 2] = [Capability::NetAdmin, Capability::NetRaw];

/// The number that the control socket of the way out has for the runner.
const EGRESS_DESCRIPTOR: i32 = 3;

/// The path by which a process finds what it inherited under this descriptor.
pub(crate) fn inherited(descriptor: i32) -> String {
    format!("/proc/self/fd/{descriptor}")
}

/// The root file system, as `runsc` can open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root<'a> {
    /// An EROFS image.
    Erofs(&'a str),
    /// A directory.
    Directory(&'a Path),
}

/// What a sandbox is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) id: &'a SandboxId,
    pub(crate) platform: Platform,
    pub(crate) language: Language,
    pub(crate) disk_bytes: u64,
    pub(crate) root: Root<'a>,
    /// The sandbox's own directory, as `runsc` can open it.
    pub(crate) dir: &'a str,
    /// The descriptor of the runner.
    pub(crate) runner: i32,
    /// The descriptor of the runner's control socket, if there is a way out.
    pub(crate) egress: Option<i32>,
}

/// The arguments of `runsc`.
pub(crate) fn arguments(wanted: &Wanted<'_>) -> Vec<String> {
    let Wanted { id, platform, dir, runner, egress, .. } = wanted;
    // Otherwise gVisor takes CAP_NET_RAW away from whoever is given it.
    let raw = egress.map(|_| "--net-raw".to_owned());
    let passed = egress.map(|socket| format!("--pass-fd={socket}:{EGRESS_DESCRIPTOR}"));
    let global = [
        format!("--root={dir}/{STATE_DIR}"),
        format!("--platform={platform}"),
        // No interface but loopback.
        "--network=none".into(),
        // The sandbox is in its group before runsc starts.
        "--ignore-cgroups".into(),
        // The sentry may open no file of the host; without it, it runs in an empty user namespace and an empty root.
        "--directfs=false".into(),
        // Nothing is writable but what the configuration says.
        "--overlay2=none".into(),
        "--host-uds=none".into(),
        "--host-fifo=none".into(),
    ];
    let run = ["run".into(), format!("--bundle={dir}"), format!("--exec-fd={runner}")];
    global.into_iter().chain(raw).chain(run).chain(passed).chain([id.to_string()]).collect()
}

/// The `config.json`.
pub(crate) fn config(wanted: &Wanted<'_>) -> Spec {
    let Wanted { language, disk_bytes, root, dir, egress, .. } = wanted;
    let size = format!("size={}", disk_bytes.saturating_add(DISK_SLACK));
    let disk = format!("{dir}/{DISK_DIR}");
    let mut annotations = HashMap::new();
    let mut annotate =
        |name: &str, value: &str| annotations.insert(format!("dev.gvisor.spec.{name}"), value.to_owned());
    // The disk: a tmpfs of the sentry whose pages are in a file in this directory, so they take no memory.
    annotate("mount.disk.source", &disk);
    annotate("mount.disk.type", "tmpfs");
    annotate("mount.disk.share", "container");
    annotate("mount.disk.options", &format!("rw,{size}"));
    let path = match root {
        Root::Erofs(image) => {
            annotate("rootfs.source", image);
            annotate("rootfs.type", "erofs");
            // Without effect on a read-only root, but the field is demanded.
            annotate("rootfs.overlay", "memory");
            Path::new(dir).join(ROOT_DIR)
        }
        Root::Directory(directory) => directory.to_path_buf(),
    };
    let mounts = vec![
        // runsc starts the runner from a descriptor, which /proc/self/exe would show as a name that static C libraries
        // do not bear. The runner mounts the real one.
        tmpfs("/proc", &["ro", "size=4096", "mode=0555"]),
        // An empty one, instead of one that tells about the host's hardware.
        tmpfs("/sys", &["ro", "size=65536", "mode=0555"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["size=65536", "mode=0555"]),
        tmpfs("/dev", &["size=65536"]),
        // Until the runner has bound the disk's part to it.
        tmpfs("/tmp", &["size=65536", "mode=0755"]),
        mount(DISK, "bind", &disk, &["rw", &size, "mode=0700"]),
    ];
    let for_egress = egress.is_some().then_some(EGRESS_CAPABILITIES).into_iter().flatten();
    let capabilities = || CAPABILITIES.into_iter().chain(for_egress.clone()).collect::<std::collections::HashSet<_>>();
    let words = ["enclave-runner", "--language", language.as_str(), "--cgroup", "/sys/fs/cgroup/pids", "--disk", DISK];
    let for_egress = egress.map(|_| ["--egress".to_owned(), EGRESS_DESCRIPTOR.to_string()]).into_iter().flatten();
    let words: Vec<String> = words.map(str::to_owned).into_iter().chain(for_egress).collect();
    let process = ProcessBuilder::default()
        .terminal(false)
        .user(UserBuilder::default().uid(0_u32).gid(0_u32).build().expect(COMPLETE))
        .args(words)
        .env(vec!["PATH=/usr/local/bin:/usr/bin:/bin".to_owned()])
        .cwd("/")
        .capabilities(
            LinuxCapabilitiesBuilder::default()
                .bounding(capabilities())
                .effective(capabilities())
                .permitted(capabilities())
                .inheritable(std::collections::HashSet::new())
                .ambient(std::collections::HashSet::new())
                .build()
                .expect(COMPLETE),
        )
        .rlimits(vec![])
        .no_new_privileges(true)
        .build()
        .expect(COMPLETE);
    let namespaces = [
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Network,
    ];
    let namespaces = namespaces.map(|typ| LinuxNamespaceBuilder::default().typ(typ).build().expect(COMPLETE));
    let mut linux = LinuxBuilder::default().namespaces(namespaces.to_vec()).build().expect(COMPLETE);
    // The defaults of the type speak to runtimes that have other mechanisms.
    linux.set_resources(None).set_masked_paths(None).set_readonly_paths(None);
    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .root(RootBuilder::default().path(path).readonly(true).build().expect(COMPLETE))
        .mounts(mounts)
        .process(process)
        .hostname("enclave")
        .linux(linux)
        .build()
        .expect(COMPLETE);
    spec.set_annotations(Some(annotations));
    spec
}

const COMPLETE: &str = "every field has a value or a default";

fn tmpfs(destination: &str, options: &[&str]) -> Mount {
    mount(destination, "tmpfs", "tmpfs", options)
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(source)
        .options(options)
        .build()
        .expect("a mount at an absolute path")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted<'a>(id: &'a SandboxId, root: Root<'a>) -> Wanted<'a> {
        Wanted {
            id,
            platform: Platform::Systrap,
            language: Language::Python,
            disk_bytes: 64 * 1024 * 1024,
            root,
            dir: "/proc/self/fd/7",
            runner: 9,
            egress: None,
        }
    }

    #[test]
    fn a_way_out_is_one_descriptor_and_what_the_runner_needs_to_set_it_up() {
        let id = SandboxId::from_bits(1);
        let without = wanted(&id, Root::Erofs("/proc/self/fd/8"));
        let with = Wanted { egress: Some(11), ..without };
        let mut expected = arguments(&without);
        expected.insert(8, "--net-raw".into());
        expected.insert(12, "--pass-fd=11:3".into());
        assert_eq!(arguments(&with), expected);
        let (without, with) = [without, with].map(|wanted| serde_json::to_value(config(&wanted)).unwrap()).into();
        let words = |spec: &serde_json::Value| spec["process"]["args"].as_array().unwrap().clone();
        assert_eq!(words(&with), [words(&without), vec![json!("--egress"), json!("3")]].concat());
        for set in ["bounding", "effective", "permitted"] {
            let count = |spec: &serde_json::Value| spec["process"]["capabilities"][set].as_array().unwrap().len();
            assert_eq!(count(&with), count(&without) + 2, "{set}");
            assert!(with["process"]["capabilities"][set].as_array().unwrap().contains(&json!("CAP_NET_ADMIN")));
        }
        assert_eq!(with["linux"], without["linux"]);
    }

    #[test]
    fn the_command_line_is_this() {
        let id = SandboxId::from_bits(1);
        assert_eq!(
            arguments(&wanted(&id, Root::Erofs("/proc/self/fd/8"))),
            [
                "--root=/proc/self/fd/7/state",
                "--platform=systrap",
                "--network=none",
                "--ignore-cgroups",
                "--directfs=false",
                "--overlay2=none",
                "--host-uds=none",
                "--host-fifo=none",
                "run",
                "--bundle=/proc/self/fd/7",
                "--exec-fd=9",
                "sbx-00000000000000000000000000000001",
            ]
        );
    }

    #[test]
    fn the_configuration_is_this() {
        let id = SandboxId::from_bits(1);
        let mut spec = serde_json::to_value(config(&wanted(&id, Root::Erofs("/proc/self/fd/8")))).unwrap();
        // Sets without an order of their own.
        for set in ["bounding", "effective", "permitted"] {
            let names = spec["process"]["capabilities"][set].as_array_mut().unwrap();
            names.sort_by_key(ToString::to_string);
        }
        let capabilities = json!(["CAP_KILL", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_ADMIN"]);
        let expected = json!({
            "ociVersion": "1.0.2",
            "root": { "path": "/proc/self/fd/7/root", "readonly": true },
            "hostname": "enclave",
            "process": {
                "terminal": false,
                "user": { "uid": 0, "gid": 0 },
                "args": [
                    "enclave-runner", "--language", "python", "--cgroup", "/sys/fs/cgroup/pids", "--disk", "/disk"
                ],
                "env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
                "cwd": "/",
                "capabilities": {
                    "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                    "inheritable": [], "ambient": []
                },
                "rlimits": [],
                "noNewPrivileges": true
            },
            "mounts": [
                { "destination": "/proc", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "size=4096", "mode=0555"] },
                { "destination": "/sys", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "size=65536", "mode=0555"] },
                {
                    "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                    "options": ["size=65536", "mode=0555"]
                },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["size=65536"] },
                { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=65536", "mode=0755"] },
                {
                    "destination": "/disk", "type": "bind", "source": "/proc/self/fd/7/disk",
                    "options": ["rw", "size=68157440", "mode=0700"]
                }
            ],
            "linux": {
                "namespaces": [
                    { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, { "type": "network" }
                ]
            },
            "annotations": {
                "dev.gvisor.spec.rootfs.source": "/proc/self/fd/8",
                "dev.gvisor.spec.rootfs.type": "erofs",
                "dev.gvisor.spec.rootfs.overlay": "memory",
                "dev.gvisor.spec.mount.disk.source": "/proc/self/fd/7/disk",
                "dev.gvisor.spec.mount.disk.type": "tmpfs",
                "dev.gvisor.spec.mount.disk.share": "container",
                "dev.gvisor.spec.mount.disk.options": "rw,size=68157440"
            }
        });
        assert_eq!(spec, expected);
    }

    #[test]
    fn a_directory_is_the_root_itself_and_read_only() {
        let id = SandboxId::from_bits(1);
        let spec = serde_json::to_value(config(&wanted(&id, Root::Directory(Path::new("/images/default"))))).unwrap();
        assert_eq!(spec["root"], json!({ "path": "/images/default", "readonly": true }));
        let annotations = spec["annotations"].as_object().unwrap();
        assert!(annotations.keys().all(|name| !name.contains("rootfs")), "{annotations:?}");
    }
}
