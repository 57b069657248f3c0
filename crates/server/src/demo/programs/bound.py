# Uses a service whose token it is not given, and hunts for the token: in answers, the environment, /proc and files.
# sim: bind demo-api GET /user
# sim: bind demo-api GET /user
# sim: bind demo-api GET /user
# sim: result {"calls": 3, "seen": ""}
import os
import re
import urllib.request

base = os.environ["ENCLAVE_SVC_DEMO_API"]
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
calls, seen = 0, []
for _ in range(3):
    with direct.open(base + "/user", timeout=10) as answer:
        body = answer.read().decode()
        seen += [body, str(answer.headers)]
        print(f"{base}/user: {answer.status} {body.strip()}")
    calls += 1
# This one gives back whatever headers it was sent.
try:
    with direct.open(base + "/echo", timeout=10) as answer:
        seen.append(answer.read().decode("latin-1"))
        print("echo: answered")
except OSError as refused:
    print(f"{base}/echo: {refused}")
seen.append(str(dict(os.environ)))
for root, _, files in list(os.walk("/proc/self")) + list(os.walk("/workspace")) + list(os.walk("/tmp")) + list(os.walk("/etc")):
    for name in files:
        try:
            descriptor = os.open(os.path.join(root, name), os.O_RDONLY | os.O_NONBLOCK)
            try:
                seen.append(os.read(descriptor, 65536).decode("latin-1"))
            finally:
                os.close(descriptor)
        except OSError:
            pass
# The token is printable; the rest would only take room.
enclave.result({"calls": calls, "seen": re.sub("[^ -~]+", "\n", "\n".join(seen))})
