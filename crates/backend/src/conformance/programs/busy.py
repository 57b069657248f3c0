# Uses some memory and some CPU time.
# sim: memory 64MiB
# sim: cpu 500ms
# sim: stdout done\n
import time

held = bytearray(b"x") * (64 * 1024 * 1024)
end = time.monotonic() + 0.5
while time.monotonic() < end:
    pass
print("done")
