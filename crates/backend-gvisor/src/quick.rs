//! What keeps `runsc` from waiting for the kernel on its way to the first instruction of a program.
//!
//! Two things that each of its processes does make the kernel wait for every processor to have been elsewhere once
//! (an RCU grace period, 7 to 18 ms measured), and a cold sandbox stood still for four of them, a fifth of its start.

use std::io;

use rustix::{
    fs::{Mode, OFlags},
    io::FdFlags,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// The sentry keeps its three streams from this number on.
const STREAMS: i32 = 256;

/// Answers `membarrier` as a kernel that does not have it, for what is executed and all that comes of it.
///
/// Every Go program of gVisor registers for it when it starts, with the wait above, and needs it for one thing only: to
/// offer it to the workload, which is told then that there is none.
pub(crate) fn no_membarrier() -> io::Result<BpfProgram> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let errno = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let rules = [(libc::SYS_membarrier, Vec::new())].into();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, errno, arch).map_err(io::Error::other)?;
    filter.try_into().map_err(io::Error::other)
}

/// Leaves room in the table of descriptors, which otherwise grows, with the wait above, when the sentry moves its
/// streams. A new process has room for the descriptors that it inherits: so it inherits a number as high as those. The
/// sentry puts the first of its streams in its place.
///
/// Between fork and exec: system calls only.
pub(crate) fn room_for_streams() -> io::Result<()> {
    let null = rustix::fs::open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // A server that has the number itself has the room as well, and one whose limit is lower goes on without.
    if let Ok(high) = rustix::io::fcntl_dupfd_cloexec(&null, STREAMS) {
        rustix::io::fcntl_setfd(&high, FdFlags::empty())?;
        std::mem::forget(high);
    }
    Ok(())
}
