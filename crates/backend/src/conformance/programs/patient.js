// Says that it is there, and waits for ever.
// sim: stdout ready\n
// sim: hang
console.log("ready");
setInterval(() => {}, 1e6);
