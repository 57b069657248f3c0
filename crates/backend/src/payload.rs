//! The runner, as bytes: every backend that executes code puts this one binary into its sandboxes.
//!
//! The build script compiles it statically; see `build.rs`.

/// The `enclave-runner` binary for this host's architecture: static, without an interpreter.
pub const RUNNER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/enclave-runner"));
