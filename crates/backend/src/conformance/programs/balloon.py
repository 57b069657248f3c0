# Takes memory until something stops it.
# sim: stdout inflating\n
# sim: memory 64GiB
print("inflating", flush=True)
held = []
while True:
    held.append(bytearray(b"x") * (4 * 1024 * 1024))
