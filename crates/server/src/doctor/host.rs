//! What this machine has of the things that backends need. Looks only; changes nothing.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use backend_gvisor::find_runsc;

use super::{Finding, Group};
use crate::{image, settings::Settings};

/// A few sandboxes with room to breathe.
const MEMORY_WANTED: u64 = 1 << 30;
/// The database, and the files of a few sessions.
const DISK_WANTED: u64 = 2 << 30;
/// How long `runsc --version` may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks at everything.
pub(super) async fn look(settings: &Settings) -> Vec<Finding> {
    vec![
        kernel(),
        root(),
        cgroups(
            &fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
            &fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default(),
        ),
        memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        disk(&settings.state.data_dir),
        kvm(),
        runsc(settings.gvisor.runsc.clone().or_else(find_runsc)).await,
        default_image(&settings.gvisor.image_dir),
    ]
}

fn kernel() -> Finding {
    let name = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    Finding::ok(
        Group::Host,
        "kernel",
        format!("{} {} {}", text(name.sysname()), text(name.release()), text(name.machine())),
    )
}

fn root() -> Finding {
    if rustix::process::geteuid().is_root() {
        Finding::ok(
            Group::Host,
            "root",
            "running as root, to give sandboxes users, namespaces and cgroups of their own",
        )
    } else {
        Finding::missing(
            Group::Host,
            "root",
            "running as an ordinary user",
            "sudo enclave doctor (and sudo enclave serve)",
        )
    }
}

/// What cgroup v1 calls the controllers that limits need; v2 needs no cpuacct.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuacct", "memory", "pids"];

fn cgroups(mountinfo: &str, unified: &str) -> Finding {
    let unified: BTreeSet<&str> = unified.split_whitespace().collect();
    if ["cpu", "memory", "pids"].iter().all(|controller| unified.contains(controller)) {
        return Finding::ok(Group::Host, "cgroups", "v2, with cpu, memory and pids");
    }
    let mounted: BTreeSet<&str> = mountinfo
        .lines()
        .filter_map(|line| line.split_once(" - cgroup ")?.1.split_whitespace().last())
        .flat_map(|options| options.split(','))
        .collect();
    let lacking: Vec<&str> = CONTROLLERS.into_iter().filter(|controller| !mounted.contains(controller)).collect();
    if lacking.is_empty() {
        return Finding::ok(Group::Host, "cgroups", "v1, with cpu, cpuacct, memory and pids");
    }
    Finding::missing(
        Group::Host,
        "cgroups",
        format!("neither v2 with cpu, memory and pids, nor v1 with {}", lacking.join(", ")),
        "boot with systemd.unified_cgroup_hierarchy=1, or mount the controllers; in a container, run it with \
         --privileged --cgroupns=host",
    )
}

fn memory(meminfo: &str) -> Finding {
    let of = |key: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
    };
    let (available, total) = (of("MemAvailable").unwrap_or(0), of("MemTotal").unwrap_or(0));
    let detail = format!("{} of {} available", gib(available), gib(total));
    if available >= MEMORY_WANTED {
        Finding::ok(Group::Host, "memory", detail)
    } else {
        Finding::missing(
            Group::Host,
            "memory",
            detail,
            format!("free some: sessions want {} or more", gib(MEMORY_WANTED)),
        )
    }
}

fn disk(data_dir: &Path) -> Finding {
    // The directory may not have been made yet.
    let there = data_dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(there) {
        Ok(statistics) => {
            let free = statistics.f_bavail.saturating_mul(statistics.f_frsize);
            let detail = format!("{} free for {}", gib(free), data_dir.display());
            if free >= DISK_WANTED {
                Finding::ok(Group::Host, "disk", detail)
            } else {
                let fix = format!("free some: {} or more; or set ENCLAVE_DATA_DIR", gib(DISK_WANTED));
                Finding::missing(Group::Host, "disk", detail, fix)
            }
        }
        Err(errno) => Finding::info(Group::Host, "disk", format!("{}: {errno}", there.display())),
    }
}

fn kvm() -> Finding {
    // Only looked at: some hosts have one that hangs whoever uses it.
    let detail = match fs::metadata("/dev/kvm") {
        Ok(_) if rustix::fs::access("/dev/kvm", rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK).is_ok() => {
            "/dev/kvm is there; this version does not use it unless runsc_platform says kvm"
        }
        Ok(_) => "/dev/kvm is there, but not for this user",
        Err(_) => "no /dev/kvm; not needed",
    };
    Finding::info(Group::Host, "kvm", detail)
}

async fn runsc(found: Option<PathBuf>) -> Finding {
    let missing = |detail: String| {
        Finding::missing(
            Group::Gvisor,
            "runsc",
            detail,
            "make setup (or install gVisor's runsc, and name it in ENCLAVE_RUNSC)",
        )
    };
    let Some(path) = found else { return missing("not in PATH".into()) };
    let mut command = tokio::process::Command::new(&path);
    command.arg("--version").env_clear().stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PATIENCE, command.output()).await {
        Err(_) => missing(format!("{} does not answer", path.display())),
        Ok(Err(error)) => missing(format!("{}: {error}", path.display())),
        Ok(Ok(output)) => {
            let text = String::from_utf8_lossy(&output.stdout);
            match text.lines().next().and_then(|line| line.strip_prefix("runsc version ")) {
                Some(version) => Finding::ok(Group::Gvisor, "runsc", format!("{version} at {}", path.display())),
                None => missing(format!("{} is not runsc", path.display())),
            }
        }
    }
}

fn default_image(dir: &Path) -> Finding {
    match image::load(dir, "default") {
        Ok(image) => {
            let manifest = image.manifest;
            let languages: Vec<String> =
                manifest.languages.iter().map(|language| format!("{} {}", language.name, language.version)).collect();
            let (made, digest) =
                (format!("{} {}", manifest.distribution, manifest.suite), &manifest.rootfs.sha256[..16]);
            Finding::ok(Group::Gvisor, "image", format!("default: {made}, {}, sha256:{digest}…", languages.join(", ")))
        }
        Err(error) => Finding::missing(Group::Gvisor, "image", error.to_string(), "enclave image build"),
    }
}

/// For people: sizes here are never so small that a tenth matters.
fn gib(bytes: u64) -> String {
    format!("{}.{} GiB", bytes >> 30, ((bytes >> 20) & 1023) * 10 / 1024)
}

#[cfg(test)]
mod tests {
    use super::{super::Status, *};

    #[test]
    fn either_version_of_cgroups_will_do_and_its_lack_is_named() {
        let line =
            |controller: &str| format!("30 25 0:26 / /sys/fs/cgroup/{controller} rw - cgroup cgroup rw,{controller}\n");
        let v1: String = CONTROLLERS.into_iter().map(line).collect();
        assert_eq!(cgroups("", "cpuset cpu io memory pids\n").status, Status::Ok);
        assert_eq!(cgroups(&v1, "").status, Status::Ok);
        assert_eq!(cgroups(&v1, "cpu").detail, "v1, with cpu, cpuacct, memory and pids");
        let lacking = cgroups(&line("cpu"), "memory");
        assert_eq!(lacking.status, Status::Missing);
        assert!(lacking.detail.contains("cpuacct, memory, pids"), "{}", lacking.detail);
    }

    #[test]
    fn memory_is_what_is_available_and_not_what_is_free() {
        let info = |kib: u64| format!("MemTotal:       8388608 kB\nMemFree:  1 kB\nMemAvailable:   {kib} kB\n");
        let enough = memory(&info(3 << 20));
        assert_eq!((enough.status, enough.detail.as_str()), (Status::Ok, "3.0 GiB of 8.0 GiB available"));
        assert_eq!(memory(&info(1000)).status, Status::Missing);
        assert_eq!(memory("").status, Status::Missing);
    }

    #[test]
    fn space_is_asked_of_the_directory_that_there_will_be() {
        let dir = tempfile::tempdir().unwrap();
        let not_yet = dir.path().join("a/b/c");
        assert!(disk(&not_yet).detail.contains(&not_yet.display().to_string()));
    }

    #[tokio::test]
    async fn a_runsc_that_is_none_is_missing() {
        assert_eq!(runsc(None).await.status, Status::Missing);
        assert_eq!(runsc(Some("/bin/echo".into())).await.status, Status::Missing);
        assert_eq!(runsc(Some("/nowhere/runsc".into())).await.status, Status::Missing);
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(gib(0), "0.0 GiB");
        assert_eq!(gib((3 << 30) + (512 << 20)), "3.5 GiB");
    }
}
