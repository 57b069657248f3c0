# try: the metadata service in every spelling of its address, by TCP, by HTTP, through both proxies
# allow: "0.0.0.0/0"
# allow: "::/0"
# expect: succeeded
# expect-result: {"reached": []}
# expect-denied: metadata_address connect tcp 169.254.169.254:80
# expect-denied: metadata_address http GET http://169.254.169.254/
# sim: connect tcp 169.254.169.254:80
# sim: http GET http://169.254.169.254/latest/meta-data/
# sim: result {"reached": []}
import http.client
import socket

PROXY = ("127.0.0.53", 3128)
SOCKS = ("127.0.0.53", 1080)
SPELLINGS = [
    "169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518",
    "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[fd00:ec2::254]", "[64:ff9b::a9fe:a9fe]", "100.100.100.200",
]
reached = []


def note(way, data):
    # The gateway's own answer is no metadata service.
    if data and b" 403 " not in data.split(b"\r\n")[0] and b"egress" not in data:
        reached.append([way, data[:80].decode("latin-1")])


for host in SPELLINGS:
    try:
        with socket.create_connection((host.strip("[]"), 80), 5) as s:
            s.settimeout(5)
            s.sendall(b"GET /latest/meta-data/ HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode())
            note("tcp " + host, s.recv(4096))
    except OSError:
        pass
    for line in (b"GET http://%s/latest/meta-data/ HTTP/1.1\r\nHost: %s\r\n\r\n", b"CONNECT %s:80 HTTP/1.1\r\nHost: %s:80\r\n\r\n"):
        try:
            with socket.create_connection(PROXY, 5) as s:
                s.settimeout(5)
                s.sendall(line % (host.encode(), host.encode()))
                note("proxy " + host, s.recv(4096))
        except OSError:
            pass
    name = host.strip("[]").encode()
    try:
        with socket.create_connection(SOCKS, 5) as s:
            s.settimeout(5)
            s.sendall(b"\x05\x01\x00")
            if s.recv(2) == b"\x05\x00":
                s.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + b"\x00\x50")
                if s.recv(10)[1:2] == b"\x00":
                    reached.append(["socks", host])
    except OSError:
        pass
enclave.result({"reached": reached})
