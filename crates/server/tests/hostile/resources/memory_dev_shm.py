# try: files in /dev/shm without end
# limits: memoryBytes=134217728 wallClockMs=30000 diskBytes=33554432
# expect: killed memory_exceeded disk_exceeded | succeeded
# sim: memory 64GiB
try:
    for n in range(10_000):
        with open(f"/dev/shm/{n}", "wb") as file:
            file.write(b"x" * (4 << 20))
except OSError:
    pass
