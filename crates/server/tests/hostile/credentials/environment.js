// try: find something in the environment that was not given, in Node
// env: GIVEN=yes
// expect: succeeded
// expect-result: {"given": "yes", "surplus": []}
// sim: result {"given": "yes", "surplus": []}
const known = new Set(["PATH", "HOME", "LANG", "ENCLAVE_SESSION_ID", "GIVEN"]);
enclave.result({ surplus: Object.keys(process.env).filter((name) => !known.has(name)), given: process.env.GIVEN });
