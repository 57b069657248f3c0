//! The built binary, attacked and broken through its public API, on every backend that is here.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod docs;
mod faults;
mod fleets;
mod git;
mod hostile;
mod network;
mod server;
mod world;

#[path = "../../src/demo/residue.rs"]
mod residue;

#[path = "../shared/leave.rs"]
mod leave;
