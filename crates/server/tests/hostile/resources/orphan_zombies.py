# try: children of children that are left to the init process, which must reap them
# limits: pids=64 wallClockMs=60000
# expect: succeeded
# expect-result: {"made": 100}
# sim: result {"made": 100}
import os
made = 0
for _ in range(100):
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)
    made += 1
enclave.result({"made": made})
