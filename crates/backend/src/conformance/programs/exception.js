// Ends with an exception that nobody catches.
// sim: stdout before\n
// sim: raise Error: no such thing
console.log("before");
throw new Error("no such thing");
