# try: a daemon that holds the output open after its parent has left
# limits: wallClockMs=20000
# expect: succeeded
# sim: exit 0
import os
import time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(0)
