# try: make a network interface: gVisor has the device in every sandbox, and it must be of no use
# expect: succeeded
# expect-result: {"made": false}
# sim: result {"made": false}
import fcntl
import struct
made = False
try:
    with open("/dev/net/tun", "r+b", buffering=0) as tunnel:
        fcntl.ioctl(tunnel, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001))
        made = True
except OSError as refused:
    print(refused)
enclave.result({"made": made})
