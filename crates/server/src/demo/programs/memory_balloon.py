# Takes memory, and touches every page of it, until something stops it.
# sim: stdout inflating\n
# sim: memory 64GiB
print("inflating", flush=True)
held = []
while True:
    held.append(bytearray(b"x") * (8 * 1024 * 1024))
