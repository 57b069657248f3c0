// Ends with a code of its own.
// sim: exit 7
process.exit(7);
