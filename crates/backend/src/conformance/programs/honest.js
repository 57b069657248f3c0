// Writes to both streams, in order, and hands back results, of which the last counts.
// sim: stdout one\ntwo\nthree\n
// sim: stderr careful\n
// sim: result {"sum": 0}
// sim: result {"sum": 6, "text": "zwölf \"✓\"", "nested": [1, {"a": null}]}
for (const word of ["one", "two", "three"]) console.log(word);
console.error("careful");
enclave.result({ sum: 0 });
enclave.result({ sum: [1, 2, 3].reduce((a, b) => a + b), text: 'zwölf "✓"', nested: [1, { a: null }] });
