//! What the process gives up before it hears a secret.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::{
    process::{
        DumpableBehavior, Resource, Rlimit, getrlimit, parent_process_death_signal, set_dumpable_behavior,
        set_parent_process_death_signal, setrlimit,
    },
    thread::set_no_new_privs,
};

use crate::run::GatewayError;

/// Descriptors that the process keeps besides the two that it was given: its standard streams.
const STANDARD: i32 = 3;

/// Closes everything else, and gives up every right. The order matters: nothing that is read later (the configuration,
/// the secrets) is read by a process that could be looked into.
pub(crate) fn process(control: &OwnedFd, pipe: &OwnedFd, user: Option<u32>) -> Result<(), GatewayError> {
    close_others(control, pipe).map_err(|error| GatewayError::Protect("close inherited descriptors", error))?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|error| GatewayError::Protect("forbid core dumps", error.into()))?;
    let files = getrlimit(Resource::Nofile);
    let most = Rlimit { current: files.maximum, maximum: files.maximum };
    setrlimit(Resource::Nofile, most)
        .map_err(|error| GatewayError::Protect("raise the limit of files", error.into()))?;
    set_no_new_privs(true).map_err(|error| GatewayError::Protect("forbid new privileges", error.into()))?;
    if let Some(user) = user
        && rustix::process::geteuid().is_root()
    {
        // The kernel forgets with the user what the parent's death is to do.
        let death = parent_process_death_signal()
            .map_err(|error| GatewayError::Protect("ask for the death signal", error.into()))?;
        become_user(user).map_err(|error| GatewayError::Protect("change the user", error))?;
        set_parent_process_death_signal(death)
            .map_err(|error| GatewayError::Protect("set the death signal", error.into()))?;
    }
    // Last: a change of the user sets it anew.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| GatewayError::Protect("forbid looking into memory", error.into()))
}

/// Closes every descriptor but the standard streams and these two.
fn close_others(control: &OwnedFd, pipe: &OwnedFd) -> io::Result<()> {
    let mut kept = [control.as_raw_fd(), pipe.as_raw_fd()];
    kept.sort_unstable();
    let [low, high] = kept;
    for (first, last) in
        [(STANDARD, low - 1), (low.max(STANDARD - 1) + 1, high - 1), (high.max(STANDARD - 1) + 1, i32::MAX)]
    {
        if first <= last {
            close_range(first, last)?;
        }
    }
    Ok(())
}

#[expect(unsafe_code, reason = "no safe wrapper of close_range exists")]
fn close_range(first: i32, last: i32) -> io::Result<()> {
    // SAFETY: no memory is involved. The process has just begun: nobody in it owns a descriptor of these.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives up root for good, groups first.
#[expect(unsafe_code, reason = "rustix changes the user of one thread, libc that of the process")]
fn become_user(user: u32) -> io::Result<()> {
    let done = |code| if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: an empty list, so nothing is read from the pointer.
    done(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: no memory is involved.
    done(unsafe { libc::setresgid(user, user, user) })?;
    // SAFETY: no memory is involved.
    done(unsafe { libc::setresuid(user, user, user) })
}
