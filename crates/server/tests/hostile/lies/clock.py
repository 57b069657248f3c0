# try: move the clock by years
# expect: succeeded
# expect-result: {"moved": false}
# sim: result {"moved": false}
import time
try:
    time.clock_settime(time.CLOCK_REALTIME, 0)
    moved = True
except OSError:
    moved = False
enclave.result({"moved": moved})
