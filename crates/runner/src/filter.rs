//! System calls that no honest program in a sandbox needs, refused to the workload before any kernel looks closer.
//!
//! The sandbox's own kernel refuses most of them already to a user without capabilities. But a user namespace would hand
//! the workload all capabilities inside of itself, and with them ways around checks that are made against the wrong
//! namespace: so there are no new namespaces, no mounts, no device nodes, and no looking into other processes' memory.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Refused whatever their arguments.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_quotactl,
    libc::SYS_acct,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
];

/// Each of them asks for a namespace.
const NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Two programs: a filter has one answer, and `clone3`, whose flags lie in memory where no filter can read them, must be
/// answered as by a kernel that does not have it, so that the C library takes `clone`.
#[derive(Debug)]
pub(crate) struct Filter {
    refused: BpfProgram,
    absent: BpfProgram,
}

impl Filter {
    /// Compiles both. Done once, before the child exists: installing them allocates nothing.
    pub(crate) fn new() -> Result<Self, seccompiler::BackendError> {
        let mut refused: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
        // In `clone` that bit is part of the signal's number.
        refused.insert(libc::SYS_unshare, flags(0, &[NAMESPACES, &[libc::CLONE_NEWTIME]].concat())?);
        refused.insert(libc::SYS_clone, flags(0, NAMESPACES)?);
        #[cfg(target_arch = "x86_64")]
        refused.insert(libc::SYS_mknod, devices(1)?);
        refused.insert(libc::SYS_mknodat, devices(2)?);
        refused.insert(libc::SYS_socket, pings_over_ipv6()?);
        let absent = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        Ok(Self { refused: compile(refused, libc::EPERM)?, absent: compile(absent, libc::ENOSYS)? })
    }

    /// Puts both into force for this thread and all that it will start. Needs `no_new_privs`.
    pub(crate) fn install(&self) -> Result<(), seccompiler::Error> {
        seccompiler::apply_filter(&self.absent)?;
        seccompiler::apply_filter(&self.refused)
    }
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: libc::c_int,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let errno = u32::try_from(errno).expect("error numbers are positive");
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), arch)?.try_into()
}

/// Any of these bits set in argument `index`.
fn flags(index: u8, bits: &[libc::c_int]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    bits.iter().map(|bit| masked(index, bit.cast_unsigned().into(), bit.cast_unsigned().into())).collect()
}

/// A file mode in argument `index` that makes a block or character device.
fn devices(index: u8) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let mask = u64::from(libc::S_IFMT);
    [libc::S_IFBLK, libc::S_IFCHR].into_iter().map(|kind| masked(index, mask, kind.into())).collect()
}

/// A socket for ICMP over IPv6. It leads nowhere, and what it sends comes by where nobody could tell of it.
fn pings_over_ipv6() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let is = |index, value: libc::c_int| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value.cast_unsigned().into())
    };
    Ok(vec![SeccompRule::new(vec![is(0, libc::AF_INET6)?, is(2, libc::IPPROTO_ICMPV6)?])?])
}

fn masked(index: u8, mask: u64, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)?;
    SeccompRule::new(vec![condition])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_devices_and_mounts_are_refused_and_threads_are_not() {
        let refused = std::thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).expect("sets");
            Filter::new().expect("compiles").install().expect("installs");
            let errno = |result: libc::c_long| {
                if result >= 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap_or(0) }
            };
            #[expect(unsafe_code, reason = "system calls that no crate wraps")]
            // SAFETY: each is refused before it reads an argument; none could change anything if it were not.
            let calls = unsafe {
                [
                    errno(libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER)),
                    errno(libc::syscall(libc::SYS_mount, 0, 0, 0, 0, 0)),
                    errno(libc::syscall(libc::SYS_mknodat, -1, c"x".as_ptr(), libc::S_IFBLK | 0o600, 0)),
                    errno(libc::syscall(libc::SYS_clone3, 0, 0)),
                    errno(libc::syscall(libc::SYS_process_vm_readv, 1, 0, 0, 0, 0, 0)),
                    errno(libc::syscall(
                        libc::SYS_socket,
                        libc::AF_INET6,
                        libc::SOCK_DGRAM | libc::SOCK_CLOEXEC,
                        libc::IPPROTO_ICMPV6,
                    )),
                ]
            };
            // Other sockets are made, where there is IPv6.
            let other = std::net::UdpSocket::bind("[::1]:0").err().and_then(|error| error.raw_os_error());
            assert_ne!(other, Some(libc::EPERM));
            // Threads still start, and plain files are still made.
            std::thread::spawn(|| ()).join().expect("a thread runs");
            calls
        });
        let refused = refused.join().expect("the thread ends");
        assert_eq!(refused, [libc::EPERM, libc::EPERM, libc::EPERM, libc::ENOSYS, libc::EPERM, libc::EPERM]);
    }
}
