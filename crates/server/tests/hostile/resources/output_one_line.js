// try: one line without end, to stderr
// limits: outputBytes=1048576 wallClockMs=20000
// expect: killed output_exceeded
// sim: output 1GiB
const piece = Buffer.alloc(65536, 120);
for (;;) require("fs").writeSync(2, piece);
