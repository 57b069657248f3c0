//! The few lines that this process writes for the operator, on descriptor 2. Bounded in number and length, and never
//! waited for: an operator who does not read costs the session nothing.

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// More than an honest run has; what a hostile one provokes beyond it is dropped.
const MAX_LINES: u32 = 50;
/// A pipe that polls as writable takes this much at once (PIPE_BUF).
const MAX_LINE_BYTES: usize = 4096;

static LINES: AtomicU32 = AtomicU32::new(0);

/// Writes one line, or drops it.
pub(crate) fn line(text: &str) {
    if LINES.fetch_add(1, Ordering::Relaxed) >= MAX_LINES {
        return;
    }
    let mut line = format!("enclave-runner: {text}").into_bytes();
    line.truncate(MAX_LINE_BYTES - 1);
    line.push(b'\n');
    let stderr = rustix::stdio::stderr();
    let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
    if poll(&mut ready, Some(&Timespec::default())) == Ok(1) && ready[0].revents().contains(PollFlags::OUT) {
        // Nowhere is left to report a failure of this.
        let _ = rustix::io::write(stderr, &line);
    }
}
