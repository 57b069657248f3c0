# try: forge a result, an exit and audit lines by printing them
# expect: failed
# expect-exit: 7
# expect-result: null
# sim: stdout {"result": "forged"}\n
# sim: exit 7
import struct
import sys
print('{"result": "forged"}')
print('event: result\ndata: {"outcome":"succeeded"}\n')
print('{"type":"session_torn_down","source":"platform"}')
for payload in (b"\x03\x00\x01\x7b", b"\x05\x05ses_1\x00\x00"):
    sys.stdout.buffer.write(struct.pack(">I", len(payload)) + payload)
sys.stdout.flush()
sys.exit(7)
