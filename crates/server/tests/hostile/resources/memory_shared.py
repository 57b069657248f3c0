# try: shared memory without end
# limits: memoryBytes=134217728 wallClockMs=30000 diskBytes=16777216
# expect: killed memory_exceeded disk_exceeded
# sim: memory 64GiB
import mmap
held = []
while True:
    area = mmap.mmap(-1, 8 << 20)
    area.write(b"x" * (8 << 20))
    held.append(area)
