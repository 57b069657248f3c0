// Hands back what it was given.
// sim: mirror
enclave.result({ args: process.argv.slice(2), env: { ...process.env } });
