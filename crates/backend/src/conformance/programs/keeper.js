// Leaves a file, says so, and waits for ever.
// sim: write out/kept.txt kept\n
// sim: stdout ready\n
// sim: hang
const fs = require("fs");

fs.mkdirSync("out");
fs.writeFileSync("out/kept.txt", "kept\n");
console.log("ready");
setInterval(() => {}, 1e6);
