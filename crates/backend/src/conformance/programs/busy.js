// Uses some memory and some CPU time.
// sim: memory 64MiB
// sim: cpu 500ms
// sim: stdout done\n
const held = Buffer.alloc(64 * 1024 * 1024, 1);
const end = Date.now() + 500;
while (Date.now() < end);
console.log("done");
