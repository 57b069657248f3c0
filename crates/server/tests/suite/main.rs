//! The built binary, attacked and broken through its public API, on every backend that is here.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod artifacts;
mod docs;
mod faults;
mod files;
mod fleets;
mod git;
mod hostile;
mod neighbours;
mod network;
mod packages;
mod server;
mod signed;
mod terminals;
mod turns;
mod warm;
mod webhooks;
mod world;

#[path = "../../src/demo/residue.rs"]
mod residue;

#[path = "../shared/leave.rs"]
mod leave;

#[path = "../shared/store.rs"]
mod store;
