# try: symbolic and hard links out of the working directory
# expect: succeeded
# expect-result: {"escaped": []}
# sim: result {"escaped": []}
import os
escaped = []
os.symlink("/proc/1/root/etc/shadow", "/workspace/shadow")
os.symlink("/../../../../etc/hostname", "/workspace/hostname")
for name in ("shadow",):
    try:
        open(f"/workspace/{name}").read()
        escaped.append(name)
    except OSError:
        pass
try:
    os.link("/etc/passwd", "/workspace/passwd")
    escaped.append("hard link")
except OSError:
    pass
enclave.result({"escaped": escaped})
