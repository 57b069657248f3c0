# Writes to the working directory and to /tmp until something stops it.
# sim: stdout filling\n
# sim: disk 64GiB
import itertools

print("filling", flush=True)
block = b"x" * (1024 * 1024)
for n in itertools.count():
    with open(("/workspace", "/tmp")[n % 2] + f"/filler-{n}", "wb") as file:
        for _ in range(16):
            file.write(block)
