# try: ports outside of the rule, addresses beside the CIDR, broadcast, IPv6 where only IPv4 is allowed, private behind a name
# allow: {"cidr": "203.0.113.8/31", "ports": [443]}
# allow: {"domain": "private.test"}
# expect: succeeded
# expect-result: {"reached": []}
# expect-denied: port_not_allowed connect tcp 203.0.113.8:80
# expect-denied: not_allowed connect tcp 203.0.113.10:443
# expect-denied: multicast_address 255.255.255.255
# expect-denied: private_address private.test
# sim: connect tcp 203.0.113.8:80
# sim: connect tcp 203.0.113.10:443
# sim: connect tcp 255.255.255.255:443
# sim: dns private.test 10.1.2.3
# sim: http GET http://private.test/
# sim: result {"reached": []}
import socket

reached = []
for host, port in (
    ("203.0.113.8", 80), ("203.0.113.7", 443), ("203.0.113.10", 443), ("203.0.113.255", 443), ("203.0.113.0", 443),
    ("255.255.255.255", 443), ("0.0.0.0", 443), ("2001:db8::1", 443), ("::ffff:203.0.113.7", 443), ("private.test", 80),
):
    shown = f"[{host}]" if ":" in host else host
    try:
        with socket.create_connection(("127.0.0.53", 3128), 5) as s:
            s.settimeout(5)
            s.sendall(f"CONNECT {shown}:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            if b" 200 " in s.recv(100):
                reached.append(["proxy", host, port])
    except OSError:
        pass
    if host == "0.0.0.0":
        continue
    try:
        with socket.create_connection((host, port), 5) as s:
            s.settimeout(5)
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            data = s.recv(4096)
            if data and b" 403 " not in data:
                reached.append(["direct", host, port])
    except OSError:
        pass
enclave.result({"reached": reached})
