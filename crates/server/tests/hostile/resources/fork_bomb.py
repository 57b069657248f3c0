# try: a fork bomb
# limits: pids=64 wallClockMs=20000
# expect: killed pids_exceeded
# sim: fork 100000
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
