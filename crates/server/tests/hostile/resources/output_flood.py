# try: 1 GiB to stdout
# limits: outputBytes=1048576 wallClockMs=20000
# expect: killed output_exceeded
# sim: output 1GiB
import sys
for _ in range(16384):
    sys.stdout.write(("x" * 63 + "\n") * 1024)
