# try: threads without end
# limits: pids=64 wallClockMs=20000
# expect: killed pids_exceeded
# sim: threads 100000
import threading
import time
while True:
    try:
        threading.Thread(target=time.sleep, args=(60,)).start()
    except RuntimeError:
        time.sleep(0.01)
