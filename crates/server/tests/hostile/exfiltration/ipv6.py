# try: raw connections over IPv6: beside the rule, another port, metadata, mapped, the gateway's own side, unique local
# allow: {"cidr": "2001:db8:1::/48", "ports": [443]}
# expect: succeeded
# expect-result: {"reached": []}
# expect-denied: not_allowed connect tcp [2001:db8:2::1]:443
# expect-denied: port_not_allowed connect tcp [2001:db8:1::1]:80
# expect-denied: metadata_address connect tcp [fd00:ec2::254]:80
# expect-denied: link_local_address connect tcp [fe80::1]:80
# sim: connect tcp [2001:db8:2::1]:443
# sim: connect tcp [2001:db8:1::1]:80
# sim: connect tcp [fd00:ec2::254]:80
# sim: connect tcp [fe80::1]:80
# sim: result {"reached": []}
import socket

reached = []
for host, port in (
    ("2001:db8:2::1", 443), ("2001:db8:1::1", 80), ("fd00:ec2::254", 80), ("fe80::1", 80), ("fd00::1", 22),
    ("::ffff:169.254.169.254", 80), ("::a9fe:a9fe", 80), ("64:ff9b::a9fe:a9fe", 80), ("2002:a9fe:a9fe::", 80),
):
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as s:
        s.settimeout(5)
        try:
            s.connect((host, port))
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            data = s.recv(4096)
        except OSError:
            continue
        if data and b" 403 " not in data:
            reached.append([host, port])
enclave.result({"reached": reached})
