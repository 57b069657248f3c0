//! `enclave gateway`: the process through which one session's traffic goes. Backends start it; it is of no use to anybody
//! else, and is not shown in help.

use std::{
    net::SocketAddr,
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
    process::ExitCode,
};

use anyhow::{Context, ensure};
use clap::Args;
use gateway::Options;

/// Serve one session's traffic, over two inherited descriptors.
#[derive(Args, Debug)]
pub(crate) struct GatewayArgs {
    /// The socket to the server
    #[arg(long, value_name = "FD")]
    control: RawFd,
    /// The socket to the runner
    #[arg(long, value_name = "FD")]
    pipe: RawFd,
    /// User and group to become
    #[arg(long, value_name = "UID")]
    user: Option<u32>,
    /// DNS server to ask
    #[arg(long, value_name = "IP:PORT")]
    resolver: Option<SocketAddr>,
}

pub(crate) fn run(args: &GatewayArgs) -> anyhow::Result<ExitCode> {
    ensure!(args.control != args.pipe, "the two descriptors are the same");
    let (control, pipe) = (inherited(args.control)?, inherited(args.pipe)?);
    gateway::run(control, pipe, &Options { user: args.user, resolver: args.resolver })?;
    Ok(ExitCode::SUCCESS)
}

/// Takes over a descriptor that this process was started with.
#[expect(unsafe_code, reason = "a number becomes a descriptor")]
fn inherited(number: RawFd) -> anyhow::Result<OwnedFd> {
    ensure!(number > 2, "{number} is no descriptor of a gateway's");
    // SAFETY: only asks whether it is open; the number is not used otherwise unless it is.
    let open = unsafe { rustix::fd::BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_getfd(open).with_context(|| format!("descriptor {number} is not open"))?;
    // SAFETY: it is open, it was inherited, and this is the process's first act: nobody else in it owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
