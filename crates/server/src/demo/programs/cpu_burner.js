// Burns CPU time in several threads at once.
// sim: stdout burning\n
// sim: cpu 1000s
const { Worker } = require("worker_threads");
console.log("burning");
for (let n = 0; n < 4; n++) new Worker("for (;;) {}", { eval: true });
