# Reads what was put there, and changes it.
# sim: cat in/deep/words.txt
# sim: cat in/empty
# sim: stdout changed\n
import os

with open("link/words.txt") as file:
    print(file.read() + open("in/empty").read(), end="")
assert os.stat("in/empty").st_mode & 0o777 == 0o640
with open("in/deep/words.txt", "w") as file:
    file.write("changed")
os.rename("in", "moved")
print(open("moved/deep/words.txt").read())
