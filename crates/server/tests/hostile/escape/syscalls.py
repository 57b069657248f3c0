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

class Piece(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

with open("/proc/1/maps") as maps:
    start = int((maps.readline() or "400000-").split("-")[0], 16)
ours = ctypes.create_string_buffer(16)
call("process_vm_readv init", 310, 1, ctypes.byref(Piece(ctypes.addressof(ours), 16)), 1, ctypes.byref(Piece(start, 16)), 1, 0)
call("unshare user", 272, 0x10000000)
call("unshare mount", 272, 0x00020000)
call("clone into a namespace", 56, 0x10000000 | 17, 0, 0, 0, 0)
call("io_uring_setup", 425, 1, ctypes.create_string_buffer(120))
call("userfaultfd", 323, 0)
call("keyctl", 250, 0, -3, 0)
call("add_key", 248, b"user", b"x", b"y", 1, -3)
call("setuid 0", 105, 0)
try:
    os.chroot("/tmp")
    escaped.append("chroot")
except OSError:
    pass
enclave.result({"escaped": escaped})
