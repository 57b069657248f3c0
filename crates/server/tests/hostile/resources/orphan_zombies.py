# try: children of children that are left to the init process, which must reap them
# limits: pids=64 wallClockMs=40000
# expect: succeeded
# expect-result: {"made": 500}
# sim: result {"made": 500}
import os
made = 0
for _ in range(500):
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)
    made += 1
enclave.result({"made": made})
