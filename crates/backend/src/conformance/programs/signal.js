// Dies of a signal.
// sim: signal 9
process.kill(process.pid, "SIGKILL");
