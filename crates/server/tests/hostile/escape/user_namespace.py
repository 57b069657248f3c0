# try: become root of a namespace of its own, and use that against the sandbox
# expect: succeeded
# expect-result: {"escaped": []}
# sim: result {"escaped": []}
import ctypes
import os
libc = ctypes.CDLL(None, use_errno=True)
escaped = []
libc.unshare(0x10000000 | 0x00020000)
libc.mount(b"none", b"/", b"", 32, 0)

def attempt(name, action):
    try:
        action()
        escaped.append(name)
    except OSError as refused:
        print(name, refused)

attempt("write to the root file system", lambda: open("/usr/escaped", "w"))
attempt("write to /etc", lambda: open("/etc/passwd", "a"))
attempt("memory of init", lambda: open("/proc/1/mem", "rb"))
for descriptor in os.listdir("/proc/1/fd"):
    path = f"/proc/1/fd/{descriptor}"
    # gVisor opens a link to a file by the file's own rights: what everybody may read is nothing of init's.
    if not os.access(os.path.realpath(path), os.R_OK):
        attempt(path, lambda: os.open(path, os.O_RDONLY))
    attempt(f"{path}, to write", lambda: os.open(path, os.O_WRONLY))
for knob in ("/sys/fs/cgroup/pids/workload/pids.max", "/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
    attempt(knob, lambda: open(knob, "w").write("100000"))
attempt("kill init", lambda: os.kill(1, 9))
enclave.result({"escaped": escaped})
