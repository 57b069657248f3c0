# Leaves a file and takes memory until something stops it.
# sim: write kept.txt kept\n
# sim: stdout inflating\n
# sim: memory 64GiB
with open("kept.txt", "w") as file:
    file.write("kept\n")
print("inflating", flush=True)
held = []
while True:
    held.append(bytearray(b"x") * (4 * 1024 * 1024))
