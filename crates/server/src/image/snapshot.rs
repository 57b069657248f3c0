//! Start-up snapshots: Node with our host program as they are in memory once both have been loaded, which halves the time
//! until a program runs; and Python's host program, compiled. A sandbox whose runner finds none made for it does without.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
};

use super::build::{BuildError, execute, io};

/// Where runners look for snapshots, inside the image.
const DIR: &str = "usr/lib/enclave";

/// Has the runner make both inside the image. Debian's Node reads parts of itself from absolute paths, so that it
/// runs only where the image is the root; the namespace lets anybody do that, and takes every right on the host away.
pub(super) fn make(root: &Path) -> Result<(), BuildError> {
    let runner = root.join(DIR).join("runner");
    fs::create_dir_all(root.join(DIR))
        .and_then(|()| fs::set_permissions(root.join(DIR), Permissions::from_mode(0o755)))
        .and_then(|()| fs::write(&runner, backend::payload::RUNNER))
        .and_then(|()| fs::set_permissions(&runner, Permissions::from_mode(0o755)))
        .map_err(io("putting the runner into the image"))?;
    let made = ["python", "node"].into_iter().try_for_each(|language| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "--net", "--ipc", "--uts", "chroot"]).arg(root);
        command.args(["/usr/lib/enclave/runner", "--language", language, "--write-snapshot", "/usr/lib/enclave"]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
        execute("making a start-up snapshot", &mut command).map(drop)
    });
    fs::remove_file(&runner).map_err(io("taking the runner out of the image"))?;
    made
}
