# try: the memory is taken by a child, and the parent would report a clean exit
# limits: memoryBytes=134217728 wallClockMs=30000
# expect: killed memory_exceeded
# sim: memory 64GiB
import os
if os.fork() == 0:
    held = []
    while True:
        held.append(bytearray(b"x") * (8 << 20))
os.wait()
