// Starts more and more threads that stay.
// sim: threads 1000
const { Worker } = require("worker_threads");

const more = () => new Worker("setInterval(() => {}, 1e6)", { eval: true }).on("error", () => {});
for (let n = 0; n < 20; n++) more();
setInterval(more, 20);
