//! What the server says about this backend when it opens it.

use std::{
    env,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use backend::GatewayProgram;

/// The gVisor backend of one server.
#[derive(Debug, Clone)]
pub struct GvisorConfig {
    /// The `runsc` binary.
    pub runsc: PathBuf,
    /// A directory of this instance alone, on a disk: the sandboxes' writable files are kept here. Made if missing.
    pub state_dir: PathBuf,
    /// Names this instance's cgroups, so that two servers on one host never touch each other's. 1 to 16 hexadecimal
    /// digits; the same after a restart, or leftovers of a crash are not found.
    pub instance: String,
    /// The root file systems that there are; the first is the default.
    pub images: Vec<ImageRef>,
    /// How gVisor intercepts system calls.
    pub platform: Platform,
    /// How long a sandbox may take until its runner says hello.
    pub boot_patience: Duration,
    /// A cgroup, relative to the root of each hierarchy, to make this instance's cgroups in: for a server that was
    /// delegated only a subtree. The root itself when none.
    pub cgroup_parent: Option<PathBuf>,
    /// What decides for sessions that have a way out. Without one there are none.
    pub gateway: Option<GatewayProgram>,
}

impl GvisorConfig {
    /// A configuration with the defaults that suit a plain host.
    pub fn new(runsc: PathBuf, state_dir: PathBuf, instance: String) -> Self {
        Self {
            runsc,
            state_dir,
            instance,
            images: Vec::new(),
            platform: Platform::default(),
            boot_patience: Duration::from_secs(25),
            cgroup_parent: None,
            gateway: None,
        }
    }
}

/// A root file system that all sandboxes of this image share read-only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRef {
    /// Its name in requests.
    pub name: String,
    /// An EROFS file (made with `-E noinline_data`), or a directory. A directory costs a file server process per
    /// sandbox, which runs as root; prefer the file.
    pub root: PathBuf,
}

/// How gVisor intercepts the system calls of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Platform {
    /// By seccomp's SIGSYS: everywhere, and the fastest without hardware help.
    #[default]
    Systrap,
    /// By ptrace: slow, for kernels where systrap does not work.
    Ptrace,
    /// By hardware virtualization; only on hosts whose /dev/kvm is the real one.
    Kvm,
}

impl Platform {
    /// The word that runsc knows it by.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Systrap => "systrap",
            Self::Ptrace => "ptrace",
            Self::Kvm => "kvm",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Finds the `runsc` binary: `ENCLAVE_RUNSC`, which is believed, or else the first one in `PATH`.
pub fn find_runsc() -> Option<PathBuf> {
    find(env::var_os("ENCLAVE_RUNSC"), env::var_os("PATH"))
}

fn find(named: Option<OsString>, path: Option<OsString>) -> Option<PathBuf> {
    if let Some(named) = named.filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    // A relative entry of PATH would make the answer depend on where the server was started.
    env::split_paths(&path?)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join("runsc"))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn the_named_runsc_is_believed_and_path_is_searched_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for (name, mode) in [("a", 0o644), ("b", 0o755), ("c", 0o755)] {
            let file = dir.path().join(name).join("runsc");
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        }
        let path = env::join_paths(
            ["relative", "/nowhere"]
                .iter()
                .map(PathBuf::from)
                .chain(["a", "b", "c"].iter().map(|name| dir.path().join(name))),
        );
        let path = path.ok();
        assert_eq!(find(None, path.clone()), Some(dir.path().join("b/runsc")));
        assert_eq!(find(Some("/x/runsc".into()), path.clone()), Some("/x/runsc".into()));
        assert_eq!(find(Some(OsString::new()), path), Some(dir.path().join("b/runsc")));
        assert_eq!(find(None, None), None);
    }
}
