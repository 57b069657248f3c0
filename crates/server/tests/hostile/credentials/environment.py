# try: find something in the environment that was not given
# env: GIVEN=yes
# expect: succeeded
# expect-result: {"surplus": [], "given": "yes"}
# sim: result {"surplus": [], "given": "yes"}
import os
known = {"PATH", "HOME", "LANG", "ENCLAVE_SESSION_ID", "GIVEN", "LC_CTYPE"}
enclave.result({"surplus": sorted(set(os.environ) - known), "given": os.environ.get("GIVEN")})
