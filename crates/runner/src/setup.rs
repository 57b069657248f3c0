//! What is done once, before anything of a tenant is in the sandbox: own protection, the shared disk, the cgroup,
//! and giving up every privilege that is not needed any more.

use std::{
    io,
    os::{
        fd::{AsFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::fs::{MetadataExt as _, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    io::{Errno, FdFlags},
    mount::MountFlags,
    process::DumpableBehavior,
    thread::{CapabilitySet, CapabilitySets},
};

use crate::{
    args::Args,
    census::Cgroup,
    egress::{self, Egress, EgressError},
    log,
    processes::{self, Processes},
};

/// Who runs the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// An unprivileged user of its own, who cannot touch this process.
    Nobody,
    /// The same user as this process, which is not root: only being non-dumpable stands between the two.
    Same,
}

/// What setting up has left for the rest of this process's life.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) user: User,
    pub(crate) processes: Processes,
    /// Readable when a child has ended.
    pub(crate) signals: OwnedFd,
    /// Where the workload is counted, if the backend named a place.
    pub(crate) cgroup: Option<Cgroup>,
    /// The way out, if the backend made one.
    pub(crate) egress: Option<Egress>,
}

/// Why the sandbox cannot be what the backend asked for. Nothing of a tenant may enter it then.
#[derive(Debug)]
pub(crate) enum SetupError {
    /// `--cgroup`, `--disk` or `--egress` without being root.
    NotRoot,
    /// The kernel refused a step of this process's own protection.
    Protect(&'static str, Errno),
    /// Signals could not be taken over.
    Signals(io::Error),
    /// The shared disk could not be laid out.
    Disk(PathBuf, io::Error),
    /// The workload's cgroup could not be made.
    Cgroup(PathBuf, io::Error),
    /// The descriptor of the way out is not open.
    NoControl(Errno),
    /// The way out could not be set up.
    Egress(EgressError),
}

impl std::fmt::Display for SetupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotRoot => write!(f, "--cgroup, --disk and --egress need root inside the sandbox"),
            Self::Protect(step, errno) => write!(f, "{step}: {errno}"),
            Self::Signals(error) => write!(f, "taking over signals: {error}"),
            Self::Disk(path, error) => write!(f, "disk at {}: {error}", path.display()),
            Self::Cgroup(path, error) => write!(f, "cgroup at {}: {error}", path.display()),
            Self::NoControl(errno) => write!(f, "--egress: {errno}"),
            Self::Egress(error) => write!(f, "{error}"),
        }
    }
}

/// Does all of it.
pub(crate) fn run(args: &Args) -> Result<Sandbox, SetupError> {
    let protect = |step, result: Result<_, Errno>| result.map_err(|errno| SetupError::Protect(step, errno));
    let control = close_inherited(args.egress).map_err(SetupError::NoControl)?;
    rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
    protect("no_new_privs", rustix::thread::set_no_new_privs(true))?;
    // Closes /proc/PID/{fd,mem,environ,...} and ptrace to everyone without CAP_SYS_PTRACE, the same user included.
    protect("non-dumpable", rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable))?;
    let signals = processes::take_signals().map_err(SetupError::Signals)?;
    let processes = Processes::find().map_err(|errno| SetupError::Protect("subreaper", errno))?;
    if !rustix::process::geteuid().is_root() {
        if args.cgroup.is_some() || args.disk.is_some() || control.is_some() {
            return Err(SetupError::NotRoot);
        }
        return Ok(Sandbox { user: User::Same, processes, signals, cgroup: None, egress: None });
    }
    protect("mount /proc", mount_proc())?;
    if let Some(disk) = &args.disk {
        lay_out(disk, &args.workspace).map_err(|error| SetupError::Disk(disk.clone(), error))?;
    }
    let cgroup = args
        .cgroup
        .as_deref()
        .map(|parent| Cgroup::create(parent).map_err(|error| SetupError::Cgroup(parent.to_owned(), error)))
        .transpose()?;
    let egress = control.map(egress::open).transpose().map_err(SetupError::Egress)?;
    drop_bounding_set();
    protect("capabilities", keep(CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL))?;
    Ok(Sandbox { user: User::Nobody, processes, signals, cgroup, egress })
}

/// Mounts /proc where the backend left that to us.
fn mount_proc() -> Result<(), Errno> {
    if Path::new("/proc/self").exists() {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", "/proc", "proc", flags, None)
}

/// Puts the workspace, /tmp and shared memory on one file system, so that its size bounds them together.
fn lay_out(disk: &Path, workspace: &Path) -> io::Result<()> {
    for (name, target) in [("workspace", workspace), ("tmp", Path::new("/tmp"))] {
        bind(&disk.join(name), target)?;
    }
    // Shared memory is a convenience: without this, /dev/shm stays what the backend made it.
    if let Err(error) = bind(&disk.join("shm"), Path::new("/dev/shm")) {
        log::line(&format!("/dev/shm is not on the disk: {error}"));
    }
    // Only the three binds lead to it from now on.
    std::fs::set_permissions(disk, PermissionsExt::from_mode(0o700))
}

fn bind(source: &Path, target: &Path) -> io::Result<()> {
    std::fs::create_dir(source)?;
    std::fs::set_permissions(source, PermissionsExt::from_mode(0o1777))?;
    rustix::mount::mount_bind(source, target)?;
    if std::fs::metadata(target)?.ino() != std::fs::metadata(source)?.ino() {
        return Err(io::Error::other("the bind mount is not in effect"));
    }
    Ok(())
}

/// Gives up all capabilities but these, of those that are there.
pub(crate) fn keep(wanted: CapabilitySet) -> Result<(), Errno> {
    let had = rustix::thread::capabilities(None)?;
    let kept = had.permitted & wanted;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)
}

/// Empties the bounding set, where CAP_SETPCAP allows it. Without, no_new_privs alone keeps set-user-id files and
/// file capabilities from giving anything back, which is enough; an empty set is one wall more.
fn drop_bounding_set() {
    for capability in CapabilitySet::all().iter() {
        if rustix::thread::remove_capability_from_bounding_set(capability).is_err() {
            return;
        }
    }
}

/// Closes what a careless backend may have left open: a workload must not inherit it, nor this process hold it. What was
/// passed on purpose is kept, for this process alone.
fn close_inherited(kept: Option<RawFd>) -> Result<Option<OwnedFd>, Errno> {
    let last = libc::c_uint::MAX;
    let Some(kept) = kept else {
        close_range(3, last);
        return Ok(None);
    };
    let number = kept.cast_unsigned();
    if number > 3 {
        close_range(3, number - 1);
    }
    close_range(number.saturating_add(1), last);
    let kept = own(kept)?;
    rustix::io::fcntl_setfd(&kept, FdFlags::CLOEXEC)?;
    Ok(Some(kept))
}

#[expect(unsafe_code, reason = "rustix has no close_range")]
fn close_range(first: libc::c_uint, last: libc::c_uint) {
    // SAFETY: takes integers. Called before this process has opened anything, so no owned descriptor is closed.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if closed == 0 {
        return;
    }
    for descriptor in first..=last.min(1024) {
        // SAFETY: as above.
        unsafe { libc::close(descriptor.cast_signed()) };
    }
}

/// Takes a descriptor that was inherited under this number, if there is one.
#[expect(unsafe_code, reason = "the number comes from the command line")]
fn own(number: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: this process has opened nothing yet, so nobody in it owns this descriptor. If it is not open, the check
    // says so before anything is done with it, and it is forgotten instead of closed.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    match rustix::io::fcntl_getfd(descriptor.as_fd()) {
        Ok(_) => Ok(descriptor),
        Err(errno) => {
            std::mem::forget(descriptor);
            Err(errno)
        }
    }
}
