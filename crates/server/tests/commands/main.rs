//! Every command of the built binary, from the outside: arguments in; output, exit codes and files out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bindings;
mod buckets;
mod documents;
mod drain;
mod files;
mod gvisor;
mod keys;
mod place;
mod run;
mod serve;
mod shell;
mod terminal;
mod triggers;

#[path = "../shared/leave.rs"]
mod leave;

#[path = "../shared/store.rs"]
mod store;
