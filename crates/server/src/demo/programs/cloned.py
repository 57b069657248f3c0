# The program of the demo's private repository: looks for traces of how it came here.
import os

traces = []
for name, value in os.environ.items():
    if "demo-" in value or "TOKEN" in name:
        traces.append(name)
for root, folders, files in os.walk("/workspace"):
    for name in folders + files:
        path = os.path.join(root, name)
        if name.startswith(".git"):
            traces.append(path)
        elif os.path.isfile(path) and b"x-access-token" in open(path, "rb").read() and name != "main.py":
            traces.append(path)
print("files:", " ".join(sorted(os.listdir("/workspace"))))
enclave.result({"traces": len(traces)})
