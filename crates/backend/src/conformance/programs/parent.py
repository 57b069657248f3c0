# Ends before its child does.
# sim: fork 1
# sim: stdout parent\n
import os
import time

if os.fork() == 0:
    time.sleep(1000)
print("parent")
