# Starts more and more processes that stay.
# sim: fork 1000
import os
import time

for _ in range(1000):
    try:
        if os.fork() == 0:
            break
    except OSError:
        pass
time.sleep(1000)
