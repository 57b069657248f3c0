// Computes, and hands back a structured result.
// sim: stdout 4 words, 3 different\n
// sim: result {"words": 4, "counts": {"be": 2, "or": 1, "to": 1}}
const words = "to be or be".split(" ");
const counts = {};
for (const word of words.toSorted?.() ?? [...words].sort()) counts[word] = (counts[word] ?? 0) + 1;
console.log(`${words.length} words, ${Object.keys(counts).length} different`);
enclave.result({ words: words.length, counts });
