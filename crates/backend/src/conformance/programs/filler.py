# Writes to files until something stops it, whatever it is told.
# sim: stdout filling\n
# sim: disk 64GiB
print("filling", flush=True)
block = b"x" * (1024 * 1024)
number = 0
while True:
    try:
        with open(f"/workspace/filler-{number}", "wb") as file:
            file.write(block)
        number += 1
    except OSError:
        pass
