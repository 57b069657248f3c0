# try: a name that resolves to the metadata service, one that changes its answer, a redirect there, the clouds' own names
# allow: {"domain": "*.test"}
# allow: {"domain": "metadata.google.internal"}
# expect: succeeded
# expect-result: {"reached": []}
# expect-denied: metadata_address meta.test
# expect-denied: metadata_address http GET http://169.254.169.254
# sim: dns meta.test 169.254.169.254
# sim: http GET http://meta.test/
# sim: http GET http://169.254.169.254/
# sim: result {"reached": []}
import http.client
import socket
import urllib.request

reached = []


def get(way, url, opener=None):
    try:
        with (opener or urllib.request).open(url, timeout=5) if opener else urllib.request.urlopen(url, timeout=5) as answer:
            if answer.headers.get("x-world") is None or "latest" in answer.url:
                reached.append([way, answer.url])
    except OSError:
        pass


direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for name in ("meta.test", "metadata.google.internal"):
    get("proxy " + name, f"http://{name}/latest/meta-data/")
    get("direct " + name, f"http://{name}/latest/meta-data/", direct)
for _ in range(3):
    get("rebinding", "http://rebind.test/latest/meta-data/", direct)
    get("rebinding", "http://rebind.test/latest/meta-data/")
# The redirect itself is a page of an allowed site; where it leads to is another request.
get("redirect", "http://allowed.test:{HTTP_PORT}/redirect?http://169.254.169.254/latest/meta-data/")
get("redirect", "http://allowed.test:{HTTP_PORT}/redirect?http://169.254.169.254/latest/meta-data/", direct)
try:
    address = socket.gethostbyname("meta.test")
    reached.append(["resolved", address])
except OSError:
    pass
enclave.result({"reached": reached})
