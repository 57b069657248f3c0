# try: anonymous memory without end
# limits: memoryBytes=134217728 wallClockMs=30000
# expect: killed memory_exceeded
# sim: memory 64GiB
held = []
while True:
    held.append(bytearray(b"x") * (8 << 20))
