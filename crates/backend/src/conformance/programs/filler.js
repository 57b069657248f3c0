// Writes to files until something stops it, whatever it is told.
// sim: stdout filling\n
// sim: disk 64GiB
const fs = require("fs");

console.log("filling");
const block = Buffer.alloc(1024 * 1024, 1);
for (let number = 0; ; number++) {
  try {
    fs.writeFileSync(`/workspace/filler-${number}`, block);
  } catch {}
}
