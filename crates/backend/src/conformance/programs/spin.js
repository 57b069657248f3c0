// Burns CPU time until something stops it.
// sim: stdout spinning\n
// sim: cpu 1000h
console.log("spinning");
for (;;);
