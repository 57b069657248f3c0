# try: results without end; the last one counts
# limits: wallClockMs=20000
# expect: succeeded
# expect-result: {"n": 199}
# sim: result {"n": 199}
for n in range(200):
    enclave.result({"n": n})
