# try: a fork bomb whose first process leaves at once
# limits: pids=64 wallClockMs=20000
# expect: killed pids_exceeded
# sim: fork 100000
import os
for _ in range(300):
    try:
        if os.fork() == 0:
            while True:
                os.fork()
    except OSError:
        pass
import time
time.sleep(15)
