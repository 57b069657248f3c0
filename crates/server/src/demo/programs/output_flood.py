# One line without an end.
# sim: output 64MiB
import sys

while True:
    sys.stdout.write("x" * 65536)
