# Never ends, and ignores being asked to.
# sim: stdout spinning\n
# sim: hang
import signal

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
print("spinning", flush=True)
while True:
    pass
