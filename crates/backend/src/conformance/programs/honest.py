# Writes to both streams, in order, and hands back results, of which the last counts.
# sim: stdout one\ntwo\nthree\n
# sim: stderr careful\n
# sim: result {"sum": 0}
# sim: result {"sum": 6, "text": "zwölf \"✓\"", "nested": [1, {"a": null}]}
import sys

for word in ("one", "two", "three"):
    print(word)
print("careful", file=sys.stderr)
enclave.result({"sum": 0})
enclave.result({"sum": sum((1, 2, 3)), "text": 'zwölf "✓"', "nested": [1, {"a": None}]})
