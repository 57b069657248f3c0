# try: zombies without end; they count as processes
# limits: pids=64 wallClockMs=60000
# expect: killed pids_exceeded | succeeded
# sim: fork 100000
import os
for _ in range(1000):
    try:
        if os.fork() == 0:
            os._exit(0)
    except OSError:
        pass
