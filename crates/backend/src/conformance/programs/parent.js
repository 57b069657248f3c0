// Ends before its child does.
// sim: fork 1
// sim: stdout parent\n
const { spawn } = require("child_process");

spawn(process.execPath, ["-e", "setTimeout(() => {}, 1e6)"], { detached: true, stdio: "inherit" }).unref();
console.log("parent");
