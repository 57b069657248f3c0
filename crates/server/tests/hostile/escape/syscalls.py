# try: mount, chroot, namespaces, modules, bpf, perf, userfaultfd, io_uring, keyctl, kexec, reboot, settimeofday
# expect: succeeded
# expect-result: {"escaped": []}
# sim: result {"escaped": []}
import ctypes
import os
libc = ctypes.CDLL(None, use_errno=True)
escaped = []

def call(name, number, *args):
    if libc.syscall(number, *args) >= 0:
        escaped.append(name)
    else:
        print(name, os.strerror(ctypes.get_errno()))

call("mount", 165, b"none", b"/mnt", b"tmpfs", 0, 0)
call("remount root", 165, b"none", b"/", b"", 32, 0)
call("pivot_root", 155, b"/tmp", b"/tmp")
call("init_module", 175, b"", 0, b"")
call("finit_module", 313, 0, b"", 0)
call("kexec_load", 246, 0, 0, 0, 0)
call("reboot", 169, 0xFEE1DEAD, 672274793, 0x1234567, 0)
call("swapon", 167, b"/dev/sda", 0)
call("settimeofday", 164, (ctypes.c_long * 2)(0, 0), 0)
call("sethostname", 170, b"x", 1)
call("bpf", 321, 0, 0, 0)
call("perf_event_open", 298, 0, 0, -1, -1, 0)
call("open_by_handle_at", 304, -100, b"\0" * 16, 0)
call("iopl", 172, 3)
call("ptrace attach init", 101, 16, 1, 0, 0)
call("kill init", 62, 1, 9)
call("process_vm_readv init", 310, 1, 0, 0, 0, 1, 0)
call("setuid 0", 105, 0)
try:
    os.chroot("/tmp")
    escaped.append("chroot")
except OSError:
    pass
enclave.result({"escaped": escaped})
