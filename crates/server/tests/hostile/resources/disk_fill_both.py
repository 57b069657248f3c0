# try: fill /workspace and /tmp by half each: the budget is one
# limits: diskBytes=16777216 wallClockMs=30000
# expect: killed disk_exceeded
# sim: disk 64GiB
import time
for place in ("/workspace/x", "/tmp/x"):
    with open(place, "wb") as file:
        file.write(b"x" * (10 << 20))
time.sleep(20)
