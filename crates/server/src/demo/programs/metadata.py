# Allowed to reach every address there is, asks for the cloud's metadata service in eight spellings, by proxy and directly.
# sim: http GET http://169.254.169.254/latest/meta-data/
# sim: http GET http://[fd00:ec2::254]/latest/meta-data/
# sim: result {"spellings": 8, "reached": []}
import socket

spellings = [
    "169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518",
    "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[fd00:ec2::254]",
]
reached = []
for host in spellings:
    target = f"http://{host}/latest/meta-data/iam/security-credentials/"
    request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    status = "no answer"
    for where in (("127.0.0.53", 3128), (host.strip("[]"), 80)):
        try:
            with socket.create_connection(where, 5) as s:
                s.settimeout(5)
                s.sendall(request)
                answer = s.recv(4096).decode("latin-1").splitlines()
        except OSError:
            continue
        if answer and " 403 " not in answer[0]:
            reached.append(host)
        if answer:
            status = answer[0].partition(" ")[2]
            break
    print(f"{host}: {status}")
enclave.result({"spellings": len(spellings), "reached": reached})
