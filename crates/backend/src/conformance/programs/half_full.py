# Writes half of what it may, and reads it back.
# sim: disk 8MiB
# sim: stdout 8388608\n
with open("/workspace/data", "wb") as file:
    for _ in range(8):
        file.write(b"x" * (1024 * 1024))
with open("/workspace/data", "rb") as file:
    print(len(file.read()))
