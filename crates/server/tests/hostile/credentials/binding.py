# try: a binding asked to echo its headers, a redirect elsewhere, header injection, smuggled and split requests
# bind: api
# expect: succeeded
# expect-result: {"seen": 0}
# expect-denied-really: secret_reflected /echo
# sim: bind api GET /echo
# sim: result {"seen": 0}
import os
import socket
from urllib.parse import urlsplit

host = urlsplit(os.environ["ENCLAVE_SVC_API"]).hostname
answers = []


def send(raw, where=None):
    try:
        with socket.create_connection(where or (host, 80), 10) as s:
            s.settimeout(10)
            s.sendall(raw)
            while data := s.recv(65536):
                answers.append(data.decode("latin-1"))
    except OSError:
        pass


def get(path, *headers):
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
    send("\r\n".join([*lines, "", ""]).encode("latin-1"))


get("/echo")
get("/echo", "Authorization: Bearer mine", "X-Forwarded-Host: evil.test", "Accept-Encoding: zstd")
get("/redirect?http://other.test:{HTTP_PORT}/echo")
get("/redirect?http://{WORLD}:{HTTP_PORT}/echo")
get("/%0d%0aX-Injected:%20yes/echo")
get("/a/../echo")
get("//echo")
get("/echo", "Connection: close, Authorization", "Range: bytes=0-20")
get("/echo", "Range: bytes=21-200")
send(f"POST /a HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /echo HTTP/1.1\r\nHost: x\r\n\r\n".encode())
send(f"POST /a HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde".encode())
send(f"GET /a HTTP/1.1\r\nHost: {host}\r\nHost: other.test\r\n\r\n".encode())
send(f"GET /a\nHost: {host}\n\nGET /echo HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
send(f"GET http://{host}/echo HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode(), ("127.0.0.53", 3128))
send(f"CONNECT {host}:80 HTTP/1.1\r\nHost: {host}\r\n\r\nGET /echo HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), ("127.0.0.53", 3128))
enclave.result({"seen": "".join(answers).count("canary-of-a-binding")})
