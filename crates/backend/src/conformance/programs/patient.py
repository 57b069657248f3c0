# Says that it is there, and waits for ever.
# sim: stdout ready\n
# sim: hang
import time

print("ready", flush=True)
while True:
    time.sleep(1000)
