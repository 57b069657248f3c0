// Takes memory until something stops it.
// sim: stdout inflating\n
// sim: memory 64GiB
console.log("inflating");
const held = [];
for (;;) held.push(Buffer.alloc(4 * 1024 * 1024, 1));
