// Leaves a file and takes memory until something stops it.
// sim: write kept.txt kept\n
// sim: stdout inflating\n
// sim: memory 64GiB
require("fs").writeFileSync("kept.txt", "kept\n");
console.log("inflating");
const held = [];
for (;;) held.push(Buffer.alloc(4 * 1024 * 1024, 1));
