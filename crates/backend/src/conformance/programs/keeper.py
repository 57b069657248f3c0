# Leaves a file, says so, and waits for ever.
# sim: write out/kept.txt kept\n
# sim: stdout ready\n
# sim: hang
import os, time

os.mkdir("out")
with open("out/kept.txt", "w") as file:
    file.write("kept\n")
print("ready", flush=True)
while True:
    time.sleep(1000)
