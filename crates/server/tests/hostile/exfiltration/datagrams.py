# try: UDP, QUIC's port, ICMP, raw and packet sockets, over IPv4 and IPv6
# allow: "0.0.0.0/0"
# allow: "::/0"
# expect: succeeded
# expect-result: {"sockets": [], "answers": []}
# expect-denied: protocol_not_carried send udp 203.0.113.9:4433
# expect-denied: protocol_not_carried send udp over IPv6
# sim: connect udp 203.0.113.9:4433
# sim: connect udp [2001:db8::9]:4433
# sim: result {"sockets": [], "answers": []}
import socket
import struct
import time

sockets, answers = [], []
for family, kind, protocol in (
    (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
    (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW),
    (socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
    (socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6),
    (socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)),
    (socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)),
):
    try:
        socket.socket(family, kind, protocol).close()
        sockets.append([int(family), int(kind)])
    except OSError:
        pass
for address in (("203.0.113.9", 4433), ("8.8.8.8", 443), ("1.1.1.1", 123), ("2001:db8::9", 4433), ("2606:4700::1111", 443)):
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(0.5)
        try:
            s.sendto(b"secrets", address)
            answers.append([address[0], s.recv(100).decode()])
        except OSError:
            pass
enclave.result({"sockets": sockets, "answers": answers})
