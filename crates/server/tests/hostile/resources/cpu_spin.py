# try: CPU on every core, children included
# limits: cpuTimeMs=700 wallClockMs=30000 cpu=2
# expect: killed cpu_exceeded
# sim: cpu 1000s
import os
for _ in range(3):
    if os.fork() == 0:
        break
while True:
    pass
