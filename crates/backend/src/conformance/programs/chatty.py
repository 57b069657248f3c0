# Writes 8 MiB and ends.
# sim: output 8MiB
import sys

for _ in range(128):
    sys.stdout.write("x" * 65535 + "\n")
