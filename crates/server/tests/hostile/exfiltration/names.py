# try: CONNECT to an allowed host and then another SNI, a Host header of another site, an allowed address under another name
# allow: {"domain": "allowed.test"}
# expect: succeeded
# expect-result: {"answers": []}
# expect-denied: not_allowed other.test
# expect-denied-really: other_name allowed.test
# sim: http GET http://other.test/
# sim: result {"answers": []}
import socket
import ssl

PROXY = ("127.0.0.53", 3128)
answers = []
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE


def note(way, data):
    if b"world" in data:
        answers.append([way, data[:60].decode("latin-1")])


def tunnel(name):
    s = socket.create_connection(PROXY, 5)
    s.settimeout(5)
    s.sendall(b"CONNECT %s:{HTTPS_PORT} HTTP/1.1\r\nHost: %s\r\n\r\n" % (name, name))
    assert b" 200 " in s.recv(4096)
    return s


# Another name in TLS, and none.
for sni in ("other.test", None):
    try:
        with tunnel(b"allowed.test") as s, context.wrap_socket(s, server_hostname=sni) as tls:
            tls.sendall(b"GET /leak HTTP/1.1\r\nHost: other.test\r\n\r\n")
            note("sni", tls.recv(4096))
    except (OSError, AssertionError):
        pass
# Plain HTTP with another Host: through the tunnel, through the proxy, directly.
try:
    with socket.create_connection(PROXY, 5) as s:
        s.settimeout(5)
        s.sendall(b"CONNECT allowed.test:{HTTP_PORT} HTTP/1.1\r\nHost: allowed.test\r\n\r\n")
        s.recv(4096)
        s.sendall(b"GET /leak HTTP/1.1\r\nHost: other.test\r\n\r\n")
        note("tunnelled host", s.recv(4096))
except OSError:
    pass
for request in (
    b"GET http://allowed.test:{HTTP_PORT}/leak HTTP/1.1\r\nHost: other.test\r\n\r\n",
    b"GET http://other.test:{HTTP_PORT}/leak HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
    b"GET http://{WORLD}:{HTTP_PORT}/leak HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
):
    try:
        with socket.create_connection(PROXY, 5) as s:
            s.settimeout(5)
            s.sendall(request)
            note("proxied host", s.recv(4096))
    except OSError:
        pass
# The second request on a connection is another one.
try:
    with socket.create_connection(PROXY, 5) as s:
        s.settimeout(5)
        s.sendall(b"GET http://allowed.test:{HTTP_PORT}/first HTTP/1.1\r\nHost: allowed.test:{HTTP_PORT}\r\n\r\n")
        s.recv(4096)
        s.sendall(b"GET http://other.test:{HTTP_PORT}/leak HTTP/1.1\r\nHost: other.test:{HTTP_PORT}\r\n\r\n")
        note("second request", s.recv(4096))
except OSError:
    pass
enclave.result({"answers": answers})
