# Doubles itself until something stops it.
# sim: fork 100000
import os

print("forking", flush=True)
while True:
    try:
        os.fork()
    except OSError:
        pass
