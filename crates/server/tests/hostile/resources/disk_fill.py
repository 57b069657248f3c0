# try: fill the working directory
# limits: diskBytes=16777216 wallClockMs=30000
# expect: killed disk_exceeded
# sim: disk 64GiB
with open("/workspace/x", "wb") as file:
    while True:
        file.write(b"x" * (1 << 20))
        file.flush()
