// Writes half of what it may, and reads it back.
// sim: disk 8MiB
// sim: stdout 8388608\n
const fs = require("fs");

for (let n = 0; n < 8; n++) fs.appendFileSync("/workspace/data", Buffer.alloc(1024 * 1024, 1));
console.log(fs.readFileSync("/workspace/data").length);
