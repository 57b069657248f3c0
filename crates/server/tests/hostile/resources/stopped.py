# try: stop the own process, so that it never exits
# limits: wallClockMs=2000
# expect: killed wall_clock_exceeded
# sim: hang
import os
import signal
os.kill(os.getpid(), signal.SIGSTOP)
