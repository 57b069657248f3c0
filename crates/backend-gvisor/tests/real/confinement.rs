//! What a sandbox is on the host, and what a workload finds inside.

use std::{fs, os::unix::fs::MetadataExt as _};

use backend::{SandboxId, SessionBackend as _};

use crate::{
    out::{out, with_way_out},
    stand_in::Mode,
    support::{Host, Running, host, python},
};

const SPIN: &str = "print('go', flush=True)\nwhile True: pass";

fn status(pid: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap_or_default();
    line.trim().to_owned()
}

#[tokio::test]
async fn no_process_of_a_sandbox_has_a_user_or_a_right_of_the_host() {
    let Some(host) = host("no_process_of_a_sandbox_has_a_user_or_a_right_of_the_host").await else { return };
    if !host.gvisor.capabilities().enforcement.kernel.contains("of the sandbox's own") {
        println!("SKIP no_process_of_a_sandbox_has_a_user_or_a_right_of_the_host: users of a sandbox's own");
        return;
    }
    let program = python(SPIN);
    let (one, other) = tokio::join!(host.start_and_hear(&program), host.start_and_hear(&program));
    let own = fs::read_link("/proc/self/ns/user").unwrap();
    let users = |id: &SandboxId| {
        let pids = host.processes(id);
        assert!(pids.len() > 2, "{pids:?}");
        let groups = host
            .traces()
            .iter()
            .filter(|path| path.starts_with("/sys/fs/cgroup") && path.ends_with(id.as_str()))
            .count();
        let mut users = Vec::new();
        for pid in pids {
            let user = fs::metadata(format!("/proc/{pid}")).unwrap().uid();
            let real: u32 = status(pid, "Uid").split_whitespace().next().unwrap().parse().unwrap();
            assert!(real >= 0x7000_0000, "{user} {real}");
            assert_ne!(fs::read_link(format!("/proc/{pid}/ns/user")).unwrap(), own);
            assert_eq!(status(pid, "NoNewPrivs"), "1");
            let is_in = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
            assert_eq!(is_in.lines().filter(|line| line.ends_with(id.as_str())).count(), groups, "{is_in}");
            users.push(real);
        }
        users.sort_unstable();
        users.dedup();
        users
    };
    let (one_users, other_users) = (users(&one.id), users(&other.id));
    assert_eq!(one_users.len(), 2, "{one_users:?}");
    assert!(one_users.iter().all(|user| !other_users.contains(user)), "{one_users:?} {other_users:?}");
    host.reclaim(&one.id).await;
    host.reclaim(&other.id).await;
}

#[tokio::test]
async fn the_sentry_holds_no_directory_and_no_capability() {
    let Some(host) = host("the_sentry_holds_no_directory_and_no_capability").await else { return };
    let running = host.start_and_hear(&python(SPIN)).await;
    let without = check_sentry(&host, &running).await;
    let Some(out) = out("the_sentry_holds_no_directory_and_no_capability", Mode::Serves).await else { return };
    // What comes back has come over a stream.
    let connect = "import socket\ns = socket.create_connection(('1.2.3.4', 80), 20); s.send(b'hi'); s.recv(2)\n";
    let running = out.host.start_and_hear(&with_way_out(python(&format!("{connect}{SPIN}")))).await;
    let with = check_sentry(&out.host, &running).await;
    // The runner's control socket, and one stream.
    assert_eq!(with, without + 2);
}

/// Gives the number of its sockets.
async fn check_sentry(host: &Host, running: &Running) -> usize {
    let command = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let sentries: Vec<u32> =
        host.processes(&running.id).into_iter().filter(|pid| command(pid).starts_with("runsc-sandbox")).collect();
    assert_eq!(sentries.len(), 1);
    let sentry = sentries[0];
    for set in ["CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"] {
        assert_eq!(status(sentry, set).trim_start_matches('0'), "", "{set}");
    }
    assert_eq!(status(sentry, "Seccomp"), "2");
    let (mut files, mut sockets) = (Vec::new(), 0);
    for entry in fs::read_dir(format!("/proc/{sentry}/fd")).unwrap() {
        let path = entry.unwrap().path();
        assert!(!fs::metadata(&path).is_ok_and(|metadata| metadata.is_dir()), "{}", path.display());
        let target = fs::read_link(&path).unwrap().display().to_string();
        sockets += usize::from(target.starts_with("socket:"));
        if target.starts_with('/') && !target.starts_with("/memfd:") && target != "/dev/null" {
            files.push(target);
        }
    }
    // What its place was held by on the way has gone.
    let streams = [256, 257, 258].map(|number| fs::read_link(format!("/proc/{sentry}/fd/{number}")).unwrap());
    assert!(streams.iter().all(|stream| stream.display().to_string().starts_with("pipe:")), "{streams:?}");
    // The image, the runner, the disk.
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(!host.processes(&running.id).iter().any(|pid| command(pid).starts_with("runsc-gofer")));
    assert_eq!(fs::read(format!("/proc/{sentry}/environ")).unwrap(), b"");
    host.reclaim(&running.id).await;
    sockets
}

/// Prints what is wrong with the sandbox, as seen from inside.
const LOOK_AROUND: &str = r"
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def wrong(what): print('WRONG', what)
def refused(what, act):
    try: act()
    except OSError: return
    wrong(what)
if os.getuid() != 65534 or os.geteuid() != 65534: wrong('user')
for line in open('/proc/self/status'):
    if line.startswith('Cap') and int(line.split()[1], 16): wrong(line)
for path in ['/x', '/usr/x', '/etc/x', '/proc/x', '/sys/x', '/dev/x', '/disk/x', '/sys/fs/cgroup/x', '/sys/fs/cgroup/pids/x']:
    refused(path, lambda: open(path, 'w'))
for path in ['/proc/1/mem', '/proc/1/exe', '/etc/shadow']: refused(path, lambda: open(path).read())
for path in ['/proc/1/root/etc', '/proc/1/cwd', '/disk']: refused(path, lambda: os.listdir(path))
for path in ['/sys/fs/cgroup/pids/workload/pids.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes', '/proc/sys/kernel/core_pattern']:
    refused(path, lambda: open(path, 'w').write('1'))
for fd in range(3):
    for mode in [os.O_RDONLY, os.O_WRONLY]: refused(('descriptor', fd), lambda: os.open(f'/proc/1/fd/{fd}', mode))
if libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None) == 0: wrong('mount')
if libc.chroot(b'/tmp') == 0: wrong('chroot')
if libc.setuid(0) == 0: wrong('setuid')
if libc.ptrace(16, 1, 0, 0) == 0: wrong('ptrace')
if libc.kill(1, 9) == 0: wrong('kill')
for family, address in [(socket.AF_INET, ('169.254.169.254', 80)), (socket.AF_INET, ('1.1.1.1', 53)), (socket.AF_INET6, ('fd00:ec2::254', 80))]:
    refused(address, lambda: socket.create_connection(address, 3))
    refused(address, lambda: socket.socket(family, socket.SOCK_DGRAM).sendto(b'x', address))
refused('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
refused('packet', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
if [name for _, name in socket.if_nameindex()] != ['lo']: wrong('interfaces')
devices = {'fd', 'full', 'fuse', 'net', 'null', 'ptmx', 'pts', 'random', 'shm', 'stderr', 'stdin', 'stdout', 'tty', 'urandom', 'zero'}
if surplus := set(os.listdir('/dev')) - devices: wrong(('devices', surplus))
if os.listdir('/sys') != ['fs']: wrong(('sys', os.listdir('/sys')))
if surplus := set(os.environ) - {'ENCLAVE_SESSION_ID', 'HOME', 'LANG', 'PATH'}: wrong(('environment', surplus))
if len(os.listdir('/proc/self/fd')) > 5: wrong(('descriptors', os.listdir('/proc/self/fd')))
for path in ['/workspace/x', '/tmp/x', '/dev/shm/x']: open(path, 'w').write('x')
print('cpus', os.cpu_count() > 0)
";

#[tokio::test]
async fn a_workload_finds_nothing_but_its_own() {
    let Some(host) = host("a_workload_finds_nothing_but_its_own").await else { return };
    let ended = host.run(&python(LOOK_AROUND)).await;
    assert_eq!(ended.seen.exit, Some(0), "{ended:?}");
    assert!(!ended.seen.stdout.contains("WRONG"), "{}", ended.seen.stdout);
}
