# try: services of the host on loopback and on its own addresses, the control plane among them, whatever the list allows
# allow: "0.0.0.0/0"
# allow: "::/0"
# allow: {"domain": "*.test"}
# env: OWN={OWN_ADDRESS}
# expect: succeeded
# expect-result: {"reached": []}
# expect-denied: loopback_address 127.0.0.1:{FORBIDDEN_PORT}
# sim: connect tcp 127.0.0.1:{FORBIDDEN_PORT}
# sim: result {"reached": []}
import os
import socket

PORTS = ({FORBIDDEN_PORT}, {SERVER_PORT})
reached = []
hosts = ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "127.1", "0.0.0.0", "2130706433", "allowed.test", os.environ["OWN"]]
for host in hosts:
    for port in PORTS:
        try:
            with socket.create_connection(("127.0.0.53", 3128), 5) as s:
                s.settimeout(5)
                s.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                if b" 200 " in s.recv(100):
                    reached.append(["connect", host, port])
        except OSError:
            pass
        try:
            with socket.create_connection(("127.0.0.53", 3128), 5) as s:
                s.settimeout(5)
                s.sendall(f"GET http://{host}:{port}/healthz HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
                if b" 403 " not in s.recv(100):
                    reached.append(["http", host, port])
        except OSError:
            pass
enclave.result({"reached": reached})
