// try: worker threads without end
// limits: pids=64 wallClockMs=30000 memoryBytes=1073741824
// expect: killed pids_exceeded
// sim: threads 100000
const { Worker } = require("worker_threads");
setInterval(() => {
  for (let n = 0; n < 8; n++) new Worker("setInterval(() => {}, 1000)", { eval: true }).on("error", () => {});
}, 10);
