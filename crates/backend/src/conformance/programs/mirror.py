# Hands back what it was given.
# sim: mirror
import os
import sys

enclave.result({"args": sys.argv[1:], "env": dict(os.environ)})
