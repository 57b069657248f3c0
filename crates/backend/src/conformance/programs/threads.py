# Starts more and more threads that stay.
# sim: threads 1000
import threading
import time

for _ in range(1000):
    try:
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    except RuntimeError:
        pass
time.sleep(1000)
