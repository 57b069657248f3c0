//! As in a sandbox: pid 1 of its own namespace, root, with a workload that is somebody else. Needs root here.

use std::{path::PathBuf, process::Command};

use protocol::{
    Exit, GuestLimit, HostFrame, Language, Start,
    files::{FILE_CHUNK_BYTES, FileDone, FileOp, FileRefusal, WhyNot},
};

use crate::support::{Case, NOBODY, has, is_root, python};

/// Puts the case into namespaces of its own, with a file system of 8 MiB to be its disk; says what is missing.
pub(crate) fn sandboxed(test: &str, case: Case) -> Option<Case> {
    let possible =
        is_root() && Command::new("unshare").args(["-pfm", "--mount-proc", "true"]).status().is_ok_and(|s| s.success());
    if !possible {
        println!("SKIP {test}: root, with pid and mount namespaces");
    }
    if !possible || !has(Language::Python, test) {
        return None;
    }
    let mut case = case;
    let disk = case.dir.path().join("disk");
    std::fs::create_dir(&disk).expect("creates");
    let script = format!("mount -t tmpfs -o size=8m,mode=1777 disk {0} && exec \"$@\"", disk.display());
    case.wrapper =
        ["unshare", "-pfm", "--mount-proc", "--kill-child", "sh", "-c", &script, "sh"].map(String::from).into();
    Some(case.options(&["--disk", disk.to_str().expect("text")]))
}

#[test]
fn the_workload_is_somebody_else_without_any_privilege() {
    let code = r"
import ctypes, os
print(os.getuid(), os.getgid(), os.getgroups(), os.getpid() > 1, os.getppid())
print({l.split()[0]: l.split()[1] for l in open('/proc/self/status') if l.startswith(('Cap', 'NoNew'))})
for number in (9, 15, 19, 0):
    try: os.kill(1, number); print('signalled')
    except PermissionError: pass
for name in ('mem', 'environ', 'fd', 'fd/0', 'root', 'cwd', 'exe', 'maps', 'syscall', 'stack'):
    try:
        os.listdir(f'/proc/1/{name}') if name in ('fd', 'root', 'cwd') else open(f'/proc/1/{name}', 'rb').read(1)
        print(name, 'open')
    except OSError: pass
libc = ctypes.CDLL(None)
print(libc.ptrace(16, 1, 0, 0), libc.mount(b'x', b'/tmp', b'tmpfs', 0, None), libc.setuid(0))
print(sorted(os.listdir('/proc/self/fd')))
";
    let Some(case) = sandboxed("pid1::privileges", python(code)) else { return };
    let none = "0000000000000000";
    let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| format!("'{set}:': '{none}'")).join(", ");
    let expected =
        format!("{NOBODY} {NOBODY} [] True 1\n{{{sets}, 'NoNewPrivs:': '1'}}\n-1 -1 -1\n['0', '1', '2', '3', '4']\n");
    assert_eq!(case.run().clean(), expected);
}

#[test]
fn the_workload_cannot_get_at_the_thread_that_serves_files() {
    let code = r"
import ctypes, os, platform, resource, time
libc = ctypes.CDLL(None, use_errno=True)
tgkill = {'x86_64': 234, 'aarch64': 131}[platform.machine()]
threads = sorted(int(name) for name in os.listdir('/proc/1/task'))
for thread in threads:
    for number in (9, 19, 15): print(libc.syscall(tgkill, 1, thread, number), end=' ')
    try: resource.prlimit(thread, resource.RLIMIT_NOFILE, (0, 0)); print('limited')
    except PermissionError: pass
    print(libc.ptrace(16, thread, 0, 0), end=' ')
    for name in ('mem', 'environ', 'fd', 'root', 'maps'):
        try: os.listdir(f'/proc/1/task/{thread}/{name}') if name in ('fd', 'root') else open(f'/proc/1/task/{thread}/{name}', 'rb').read(1)
        except OSError: continue
        print(name, 'open')
print(len(threads), open('/proc/1/status').read().split('CapEff:')[1].split()[0] != '0', flush=True)
time.sleep(600)
";
    let Some(case) = sandboxed("pid1::files", python(code)) else { return };
    let mut open = case.open();
    let start = Start { disk_bytes: 8 << 20, ..case.start.clone() };
    open.send(&HostFrame::Start(Box::new(start)));
    open.wait_for("-1 -1 -1 -1 -1 -1 -1 -1 2 True\n");
    // It works all the same, as the workload, and within its disk.
    let create = |path: &str, size| FileOp::Create { handle: 1, path: path.into(), mode: 0o600, size };
    let ask = crate::files::ask;
    assert_eq!(ask(&mut open, create("a/b", None)), Ok(FileDone::Done));
    let block = vec![0; FILE_CHUNK_BYTES];
    assert_eq!(ask(&mut open, FileOp::Write { handle: 1, data: block.clone() }), Ok(FileDone::Done));
    assert_eq!(ask(&mut open, FileOp::Commit { handle: 1 }), Ok(FileDone::Done));
    let no_space = |done: Result<FileDone, FileRefusal>| assert_eq!(done.expect_err("full").why, WhyNot::NoSpace);
    no_space(ask(&mut open, create("big", Some(9 << 20))));
    assert_eq!(ask(&mut open, create("big", None)), Ok(FileDone::Done));
    let full = (0..20).find_map(|_| ask(&mut open, FileOp::Write { handle: 1, data: block.clone() }).err());
    no_space(Err(full.expect("the disk has 8 MiB")));
    let list = FileOp::List { path: None, recursive: true, after: None, limit: 10 };
    let Ok(FileDone::Listed { entries, .. }) = ask(&mut open, list) else { panic!("not listed") };
    let names: Vec<_> = entries.iter().map(|entry| String::from_utf8_lossy(&entry.path.0)).collect();
    assert_eq!(names.iter().filter(|name| !name.starts_with("main")).collect::<Vec<_>>(), ["a", "a/b"]);
}

#[test]
fn workspace_tmp_and_shared_memory_are_one_bounded_disk() {
    let code = r"
import os
def fill(path):
    written = 0
    try:
        with open(path, 'wb', 0) as file:
            while True: written += file.write(b'x' * 65536)
    except OSError as error: return error.errno, written >> 20
print(fill('big'), fill('/tmp/big'), fill('/dev/shm/big'))
os.truncate('big', 2 << 20)
print(fill('/tmp/big'))
os.unlink('/tmp/big')
import multiprocessing
print(type(multiprocessing.Lock()).__name__)
";
    let Some(case) = sandboxed("pid1::disk", python(code)) else { return };
    assert_eq!(case.run().clean(), "(28, 7) (28, 0) (28, 0)\n(28, 5)\nLock\n");
}

#[test]
fn a_disk_that_is_over_its_limit_at_the_end_is_reported() {
    let write = |bytes: u64| python(&format!("open('/tmp/x', 'wb').write(b'x' * {bytes})"));
    for (bytes, exceeded) in [(4 << 20, vec![]), (5 << 20, vec![GuestLimit::Disk])] {
        let Some(case) = sandboxed("pid1::full_disk", write(bytes)) else { return };
        let run = case.with(|start| start.disk_bytes = 4 << 20).run();
        assert_eq!((run.exceeded(), run.exit()), (exceeded, Exit::Code(0)), "{bytes} bytes");
    }
    let removed = "import os\nopen('/tmp/x', 'wb').write(b'x' * (5 << 20))\nos.unlink('/tmp/x')";
    let Some(case) = sandboxed("pid1::full_disk", python(removed)) else { return };
    assert_eq!(case.with(|start| start.disk_bytes = 4 << 20).run().exceeded(), []);
}

#[test]
fn nothing_of_the_workload_outlives_its_first_process() {
    let code = "import os, signal\nfor _ in range(20):\n    if os.fork() == 0:\n        os.setsid()\n        while True: os.fork() if os.getpid() % 50 == 0 else signal.pause()\n\
                print('left')";
    let Some(case) = sandboxed("pid1::end", python(code)) else { return };
    let run = case.run();
    assert_eq!((run.exit(), run.stdout().as_str()), (Exit::Code(0), "left\n"));
}

/// A pids cgroup for one test, gone afterwards.
struct Cgroup(PathBuf);

impl Cgroup {
    fn create(test: &str) -> Option<Self> {
        let dir = PathBuf::from(format!("/sys/fs/cgroup/pids/enclave-runner-{}", std::process::id()));
        if std::fs::create_dir(&dir).is_ok() && dir.join("pids.max").exists() {
            return Some(Self(dir));
        }
        println!("SKIP {test}: a v1 pids cgroup");
        None
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        crate::support::eventually(|| {
            let _ = std::fs::remove_dir(self.0.join("workload"));
            std::fs::remove_dir(&self.0).ok()
        });
    }
}

#[test]
fn a_fork_bomb_is_stopped_by_the_cgroup_and_reported() {
    let Some(case) =
        sandboxed("pid1::fork_bomb", python("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"))
    else {
        return;
    };
    let Some(cgroup) = Cgroup::create("pid1::fork_bomb") else { return };
    let case = case.options(&["--cgroup", cgroup.0.to_str().expect("text")]).with(|start| start.pids = 40);
    let mut open = case.open();
    open.send(&HostFrame::Start(Box::new(case.start.clone())));
    open.wait_for_exceeded(GuestLimit::Pids);
    let most: u32 =
        std::fs::read_to_string(cgroup.0.join("workload/pids.max")).expect("reads").trim().parse().expect("a number");
    let now: u32 = std::fs::read_to_string(cgroup.0.join("workload/pids.current"))
        .expect("reads")
        .trim()
        .parse()
        .expect("a number");
    assert!(most == 48 && (41..=48).contains(&now), "{now} of {most}");
    open.hang_up();
    assert_eq!(open.finish().exceeded(), [GuestLimit::Pids]);
}

#[test]
fn a_bomb_that_is_over_before_anyone_looks_is_still_reported() {
    let code =
        "import os\nfor _ in range(60):\n    try:\n        if os.fork() == 0: os._exit(0)\n    except OSError: pass";
    let Some(case) = sandboxed("pid1::short_bomb", python(code)) else { return };
    let Some(cgroup) = Cgroup::create("pid1::short_bomb") else { return };
    let case = case.options(&["--cgroup", cgroup.0.to_str().expect("text")]).with(|start| start.pids = 20);
    let run = case.run();
    assert_eq!((run.exceeded(), run.exit()), (vec![GuestLimit::Pids], Exit::Code(0)));
}
