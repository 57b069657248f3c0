// Writes 8 MiB and ends.
// sim: output 8MiB
const line = "x".repeat(65535) + "\n";
for (let n = 0; n < 128; n++) require("fs").writeSync(1, line);
