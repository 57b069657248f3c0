//! The end of a server that a test does not need any more.

use std::{
    process::{Child, Command},
    time::{Duration, Instant},
};

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks it to leave, and kills it if it does not: a server that is killed leaves its cgroups to a next one, and here there is
/// none.
pub(crate) fn leave(server: &mut Child) {
    if matches!(server.try_wait(), Ok(None)) {
        let _ = Command::new("kill").args(["-TERM", &server.id().to_string()]).status();
    }
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until && matches!(server.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = server.kill();
    let _ = server.wait();
}
