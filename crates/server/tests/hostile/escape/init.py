# try: reach the runner: its memory, its descriptors, its root, its environment, its end
# expect: succeeded
# expect-result: {"escaped": []}
# sim: result {"escaped": []}
import os
import signal
escaped = []
for path in ("/proc/1/mem", "/proc/1/root/etc/hostname", "/proc/1/fd/0", "/proc/1/fd/1", "/proc/1/cwd/x"):
    try:
        with open(path, "rb") as file:
            file.read(16)
        escaped.append(path)
    except OSError as refused:
        print(path, refused)
# gVisor lets everybody read this one: it must hold nothing.
with open("/proc/1/environ", "rb") as file:
    surplus = [entry for entry in file.read().split(b"\0") if entry and not entry.startswith(b"PATH=")]
if surplus:
    escaped.append(f"/proc/1/environ {surplus}")
for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, signal.SIGHUP, signal.SIGUSR1):
    try:
        os.kill(1, number)
        escaped.append(f"signal {number}")
    except OSError:
        pass
enclave.result({"escaped": escaped})
