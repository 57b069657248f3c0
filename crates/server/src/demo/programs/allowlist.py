# Asks for the one destination that its list has, and for three that it has not.
# sim: connect tcp 127.0.0.1:1
# sim: http GET http://example.com/
# sim: http GET http://203.0.113.7/
# sim: result {"reached": ["the host"], "refused": 3}
import http.client
import os
from urllib.parse import urlsplit

proxy = urlsplit(os.environ["HTTP_PROXY"])
reached, refused = [], 0
for host in (f"127.0.0.1:{os.environ['API_PORT']}", "127.0.0.1:1", "example.com", "203.0.113.7"):
    connection = http.client.HTTPConnection(proxy.hostname, proxy.port, timeout=10)
    connection.request("GET", f"http://{host}/")
    answer = connection.getresponse()
    if answer.status == 200:
        print(f"reached  {host}: {answer.read().decode().strip()}")
        reached.append(host)
    else:
        print(f"refused  {host}: {answer.reason}")
        refused += 1
enclave.result({"reached": reached, "refused": refused})
