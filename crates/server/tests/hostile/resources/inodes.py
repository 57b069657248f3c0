# try: empty files without end
# limits: diskBytes=16777216 memoryBytes=134217728 wallClockMs=8000
# expect: killed memory_exceeded disk_exceeded wall_clock_exceeded | failed
# sim: hang
n = 0
while True:
    open(f"/workspace/{n}", "w").close()
    n += 1
