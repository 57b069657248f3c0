# Asks for one destination that its list has, and for three that it has not.
# sim: http GET http://127.0.0.1:{API_PORT}/
# sim: connect tcp 127.0.0.1:1
# sim: http GET http://example.com/
# sim: connect tcp 203.0.113.7:443
# sim: result {"reached": ["127.0.0.1:{API_PORT}"], "refused": 3}
import os
import urllib.request

reached, refused = [], 0
for host in (f"127.0.0.1:{os.environ['API_PORT']}", "127.0.0.1:1", "example.com", "203.0.113.7:443"):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": os.environ["HTTP_PROXY"]}))
    try:
        with opener.open(f"http://{host}/", timeout=10) as answer:
            print(f"reached  {host}: {answer.read().decode().strip()}")
        reached.append(host)
    except OSError as error:
        print(f"refused  {host}: {error}")
        refused += 1
enclave.result({"reached": reached, "refused": refused})
