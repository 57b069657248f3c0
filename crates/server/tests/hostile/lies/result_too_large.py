# try: a result over the limit is an error that the program sees
# expect: succeeded
# expect-result: "refused"
# sim: result "refused"
try:
    enclave.result("x" * (2 << 20))
except ValueError:
    enclave.result("refused")
