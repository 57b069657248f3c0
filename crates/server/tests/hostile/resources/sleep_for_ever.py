# try: sleep for ever, deaf to signals
# limits: wallClockMs=1500
# expect: killed wall_clock_exceeded
# sim: hang
import signal
import time
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    time.sleep(1000)
