//! The API over a real engine, the simulator and SQLite: through the router alone where that is enough, over TCP where
//! the connection is what is tested.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod artifacts;
mod bad_input;
mod bindings;
mod browsers;
mod faults;
mod files;
mod fleets;
mod forms;
mod harness;
mod identity;
mod public;
mod serving;
mod sessions;
mod sockets;
mod strangers;
mod streams;
mod terminals;
mod triggers;
mod turns;
mod webhooks;
