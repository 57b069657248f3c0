// try: CPU in a tight loop, in Node
// limits: cpuTimeMs=1000 wallClockMs=30000
// expect: killed cpu_exceeded
// sim: cpu 1000s
for (;;) {}
