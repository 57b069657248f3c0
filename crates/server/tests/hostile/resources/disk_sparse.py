# try: a sparse file of 10 GiB takes no room, and harms nobody
# limits: diskBytes=16777216
# expect: succeeded
# sim: exit 0
with open("/workspace/sparse", "wb") as file:
    try:
        file.truncate(10 << 30)
    except OSError:
        pass
