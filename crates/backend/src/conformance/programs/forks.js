// Starts more and more processes that stay.
// sim: fork 1000
const { spawn } = require("child_process");

const more = () => spawn(process.execPath, ["-e", "setTimeout(() => {}, 1e6)"]).on("error", () => {});
for (let n = 0; n < 20; n++) more();
setInterval(more, 20);
