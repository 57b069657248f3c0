# try: a result nested deeper than any reader would bear
# expect: succeeded failed
# sim: exit 0
value = 1
for _ in range(500):
    value = [value]
enclave.result(value)
