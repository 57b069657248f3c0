// Reads what was put there, and changes it.
// sim: cat in/deep/words.txt
// sim: cat in/empty
// sim: stdout changed\n
const fs = require("fs");

process.stdout.write(fs.readFileSync("link/words.txt", "utf8") + fs.readFileSync("in/empty", "utf8"));
if ((fs.statSync("in/empty").mode & 0o777) !== 0o640) throw new Error("another mode");
fs.writeFileSync("in/deep/words.txt", "changed");
fs.renameSync("in", "moved");
console.log(fs.readFileSync("moved/deep/words.txt", "utf8"));
