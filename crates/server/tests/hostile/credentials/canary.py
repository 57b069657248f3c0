# try: find the host's secrets: a canary of the test stands in the server's environment and in files around it
# expect: succeeded
# expect-result: {"found": []}
# sim: result {"found": []}
import glob
import os
found = []
# Put together here, so that this program does not find itself.
canary = "-".join(("canary", "of", "the", "host"))
paths = glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/enclave/**", recursive=True)
for top in ("/etc", "/root", "/home", "/run", "/var", "/tmp", "/disk", "/mnt", "/srv"):
    for folder, _, names in os.walk(top):
        paths += [os.path.join(folder, name) for name in names]
for path in paths:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        continue
    try:
        if canary.encode() in os.read(descriptor, 1 << 20):
            found.append(path)
    except OSError:
        pass
    finally:
        os.close(descriptor)
enclave.result({"found": found})
