//! What a deployment decides about its HTTP surface. The server fills it from its configuration; nothing here is read
//! from the environment.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Limits and times of the API. The defaults are right for one machine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether calls without an identity act as the owner of the dev org. Turns on the checks that keep web pages out.
    pub profile_is_dev: bool,
    /// Bytes that a request body may have.
    pub body_limit: usize,
    /// Bytes that the body of a request for a fleet may have: ten thousand inputs of 1.6 KiB.
    pub fleet_body_limit: usize,
    /// Bytes that all bodies being read and decided on may have together; what comes on top is told to come again.
    pub body_budget: usize,
    /// How long a client may take to send a whole body.
    pub body_timeout: Duration,
    /// How long an operation may take until its answer begins. A long poll gets its wait on top.
    pub request_timeout: Duration,
    /// How often an open stream sends a comment and checks that its caller may still read it.
    pub heartbeat: Duration,
    /// Connections at the same time; more wait in the kernel's queue.
    pub max_connections: usize,
    /// How long a client may take to send a request's head. Also how long an idle HTTP/1 connection is kept.
    pub header_timeout: Duration,
    /// How long a connection without any request under way is kept.
    pub idle_timeout: Duration,
    /// How long a client may take none of the bytes that it was sent. Over HTTP/2, where it may ask for none at all, a
    /// heartbeat longer.
    pub stall_timeout: Duration,
    /// Bytes that a request's head may have.
    pub max_header_bytes: usize,
    /// Headers that a request may have.
    pub max_headers: usize,
    /// How long requests under way may still take once the server was told to stop.
    pub drain_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            profile_is_dev: false,
            body_limit: 2 * MIB,
            fleet_body_limit: 16 * MIB,
            body_budget: 64 * MIB,
            body_timeout: Duration::from_secs(15),
            request_timeout: Duration::from_secs(30),
            heartbeat: Duration::from_secs(15),
            max_connections: 1024,
            header_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_mins(1),
            max_header_bytes: 32 * KIB,
            max_headers: 100,
            drain_timeout: Duration::from_secs(10),
        }
    }
}
