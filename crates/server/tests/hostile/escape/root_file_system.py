# try: write outside of the working directory, make devices and set-user-id files, run as root
# expect: succeeded
# expect-result: {"escaped": [], "uid": 65534, "capabilities": "0000000000000000", "setuid": []}
# sim: result {"escaped": [], "uid": 65534, "capabilities": "0000000000000000", "setuid": []}
import os
import stat
escaped = []
for path in ("/x", "/etc/x", "/usr/x", "/usr/bin/python3", "/root/x", "/var/x", "/proc/sys/kernel/core_pattern",
             "/proc/sysrq-trigger", "/sys/kernel/x", "/enclave/x", "/disk/x", "/dev/x"):
    try:
        with open(path, "a") as file:
            file.write("x")
        escaped.append(path)
    except OSError:
        pass
try:
    os.mknod("/tmp/device", 0o666 | stat.S_IFBLK, os.makedev(8, 0))
    escaped.append("mknod")
except OSError:
    pass
setuid = []
for top, _, names in os.walk("/usr"):
    for name in names:
        try:
            if os.lstat(os.path.join(top, name)).st_mode & (stat.S_ISUID | stat.S_ISGID):
                setuid.append(os.path.join(top, name))
        except OSError:
            pass
with open("/proc/self/status") as file:
    status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
enclave.result({"escaped": escaped, "uid": os.getuid(), "capabilities": status["CapEff"], "setuid": setuid})
