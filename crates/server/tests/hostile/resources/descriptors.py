# try: file descriptors without end
# limits: wallClockMs=20000
# expect: succeeded
# expect-result: {"exhausted": true}
# sim: result {"exhausted": true}
import os
exhausted = False
held = []
try:
    for _ in range(2_000_000):
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    exhausted = True
for descriptor in held[:10]:
    os.close(descriptor)
enclave.result({"exhausted": exhausted})
